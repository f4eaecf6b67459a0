"""`beagle --server URL …`: the sub-commands that a service answers, spoken to through its client."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beagle import console
from beagle.fidelity_flags import (
    Confirm,
    ConfirmEpochs,
    ConfirmSeeds,
    EpochBudget,
    Epochs,
    Patience,
    chosen_ladder,
)
from beagle.flags import Json

if TYPE_CHECKING:
    from cluster.client import Event, ServiceClient
    from cluster.service_models import Evolution, FitResult

app = typer.Typer()
anchors_app = typer.Typer()
app.add_typer(anchors_app, name="anchors", help="Fit anchors to data.")

Run = Annotated[str, typer.Argument(help="Id of the evolution, as `status` lists it.")]


@dataclass(frozen=True)
class Server:
    """Which service is spoken to.

    Attributes:
        url: Its address.
        token_file: Of its token; None for the variable BEAGLE_TOKEN.
    """

    url: str
    token_file: Path | None

    def client(self) -> "ServiceClient":
        """A client of it; raises ClusterError where the token can't be read."""
        from cluster.client import ServiceClient
        from cluster.service_settings import read_token

        return ServiceClient(self.url, read_token(self.token_file))


@app.command("evolve")
def evolve(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(help="On the service's machine, under a folder that it allows; or digits.")
    ],
    name: Annotated[str, typer.Option("--name", help="Of the run; by default the time of day.")] = "",
    model: Annotated[str, typer.Option("--model", help="Of the zoo, or a YAML file there.")] = "yolov5s",
    trials: Annotated[int, typer.Option("--trials")] = 300,
    epochs: Epochs = "10",
    patience: Patience = None,
    epoch_budget: EpochBudget = None,
    confirm: Confirm = 0,
    confirm_epochs: ConfirmEpochs = None,
    confirm_seeds: ConfirmSeeds = 3,
    image_size: Annotated[int, typer.Option("--image-size", help="Longer image side in px.")] = 640,
    batch_size: Annotated[int, typer.Option("--batch-size")] = 16,
    genes: Annotated[str, typer.Option("--genes", help="Names to evolve, with commas.")] = "",
    search: Annotated[str, typer.Option("--search", help="genetic, or a sampler of Optuna.")] = "genetic",
    anchors: Annotated[str, typer.Option("--anchors", help="auto, fit or keep.")] = "auto",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    cpus: Annotated[float, typer.Option("--cpus", help="Of each trial.")] = 1.0,
    gpus: Annotated[float, typer.Option("--gpus", help="Of each trial.")] = 0.0,
    concurrent: Annotated[int | None, typer.Option("--concurrent", help="Most trials at once.")] = None,
    to: Annotated[
        str, typer.Option("--to", help="local, slurm, ray or kubernetes, as the service allows.")
    ] = "local",
    nodes: Annotated[int, typer.Option("--nodes", help="Machines of the job.")] = 1,
    hours: Annotated[float | None, typer.Option("--hours", help="Longest time of the job.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its events until it ends.")] = False,
    as_json: Json = False,
) -> None:
    """Start an evolution there, and print its id. Ctrl-C ends --follow, not the evolution."""
    from beagle.evolve_command import gene_names
    from beagle.folders import CommandError
    from cluster.service_models import NewEvolution

    *rungs, whole = chosen_ladder(epochs, None, 3.0).rungs
    fields = {
        "data": data, "name": name or f"evolve-{time.strftime('%Y%m%d-%H%M%S')}", "model": model,
        "trials": trials, "epochs": whole, "rungs": rungs, "patience": patience, "epoch_budget": epoch_budget,
        "confirm": confirm, "confirm_epochs": confirm_epochs, "confirm_seeds": confirm_seeds,
        "image_size": image_size, "batch_size": batch_size, "genes": list(gene_names(genes)),
        "search": search, "anchors": anchors, "seed": seed, "cpus": cpus, "gpus": gpus, "concurrent": concurrent,
        "to": to, "nodes": nodes, "hours": hours,
    }  # fmt: skip
    try:
        new = NewEvolution.model_validate(fields)
    except ValueError as error:
        raise CommandError(f"the service would refuse this: {first_fault(error)}") from error
    with context.ensure_object(Server).client() as client:
        started = client.start(new)
        if as_json:
            console.show_json(started.model_dump())
        else:
            console.out.print(started.id)
        if follow:
            for event in client.events(started.id, 0):
                show_event(event)
            client.evolution(started.id)


def first_fault(error: ValueError) -> str:
    """The first of what a model of the contract finds wrong, with its field."""
    faults = getattr(error, "errors", None)
    if faults is None:
        return str(error)
    first = faults()[0]
    return f"--{'.'.join(map(str, first['loc'])).replace('_', '-')}: {first['msg']}"


def show_event(event: "Event") -> None:
    """One line for an event that people care about."""
    data = event.data
    if event.kind == "epoch":
        fitness = data["metrics"].get("fitness")
        console.note(
            f"trial {data['trial']}, epoch {data['epoch'] + 1}: fitness {console.cell_text(fitness)}"
        )
    elif event.kind == "trial" and data["state"] != "running":
        why = f" ({data['reason']})" if data["reason"] else ""
        console.note(f"trial {data['id']} {data['state']}: fitness {console.cell_text(data['fitness'])}{why}")
    elif event.kind == "end":
        best = data["best"]
        told = f", best: trial {best['trial']} with fitness {best['fitness']:.4f}" if best else ""
        reason = f" ({data['reason']})" if data["reason"] else ""
        console.done(f"{data['id']} {data['state']}{reason}{told}")


@app.command("status")
def status(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(help="Id of one evolution; all without it.")] = None,
    most: Annotated[int, typer.Option("--most", help="Show at most this many trials; 0 for all.")] = 20,
    as_json: Json = False,
) -> None:
    """Show how the evolutions of the service stand, or one of them."""
    with context.ensure_object(Server).client() as client:
        if run is not None:
            _show_evolution(client.evolution(run), most, as_json=as_json)
            return
        listed = client.evolutions()
    if as_json:
        console.show_json(listed.model_dump())
        return
    rows = [
        [each.id, each.state, each.finished + each.failed + each.cut, each.planned, each.best and each.best.fitness,
         each.data, each.model, each.reason]
        for each in listed.evolutions
    ]  # fmt: skip
    columns = ["evolution", "state", "ended", "planned", "best", "data", "model", "reason"]
    console.show_table("Evolutions", columns, rows)


def _show_evolution(found: "Evolution", most: int, *, as_json: bool) -> None:
    if as_json:
        console.show_json(found.model_dump())
        return
    columns = ["trial", "status", "fitness", "epochs", "seconds", "origin", "attempt", "reason"]
    ranked = sorted(
        found.trials, key=lambda each: -1.0 if each.fitness is None else each.fitness, reverse=True
    )
    rows = [
        [each.id, each.state, each.fitness, each.epoch, each.seconds, each.origin.get("kind", ""), each.attempt,
         each.reason]
        for each in ranked[: most or None]
    ]  # fmt: skip
    console.show_table(
        f"{found.id}: {found.state}, {found.finished} finished, {found.failed} failed, {found.running} running, "
        f"of {found.planned}",
        columns,
        rows,
    )
    if found.reason:
        console.note(found.reason)
    if found.winner is not None:
        console.out.print(f"best: trial {found.winner.trial} with fitness {found.winner.fitness:.4f}")


@app.command("stop")
def stop(context: typer.Context, run: Run, as_json: Json = False) -> None:
    """Ask an evolution to stop: its trials end their epoch and keep their checkpoints."""
    with context.ensure_object(Server).client() as client:
        asked = client.stop(run)
    if as_json:
        console.show_json(asked.model_dump())
    else:
        console.done(f"asked {asked.asked} to stop {run}")


@app.command("report")
def report(
    context: typer.Context,
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Page to write.")] = Path("report.html"),
) -> None:
    """Write the report of an evolution here: one HTML page."""
    from beagle.folders import write_bytes

    with context.ensure_object(Server).client() as client:
        write_bytes(out, client.report(run))
    console.out.print(str(out))


@app.command("export")
def export(
    context: typer.Context,
    run: Run,
    to: Annotated[Path, typer.Option("--to", help="Folder to make here; must not exist.")],
    target_format: Annotated[
        str | None, typer.Option("--format", help="beagle, yolov5, scaled-yolov4 or ultralytics.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the best configuration of an evolution here, for production to train from."""
    from beagle.export_command import show_export

    with context.ensure_object(Server).client() as client:
        target = client.export(run, to, target_format)
    if as_json:
        console.show_json({"folder": target, "files": sorted(path.name for path in target.iterdir())})
    else:
        show_export(target)


@anchors_app.command("fit")
def fit(
    context: typer.Context,
    data: Annotated[
        str, typer.Argument(help="CSV, .txt, .xml, COCO .json or a zip of labels, sent there; or digits.")
    ],
    there: Annotated[
        bool,
        typer.Option(
            "--there", help="DATA is a path on the service's machine, under a folder that it allows."
        ),
    ] = False,
    model: Annotated[str, typer.Option("--model", help="A model of `beagle model list`.")] = "yolov5s",
    image_size: Annotated[int, typer.Option("--image-size", help="Longer image side in px.")] = 640,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Largest side ratio of box to anchor.")
    ] = 4.0,
    per_level: Annotated[
        int, typer.Option("--per-level", help="Anchors a level; the model's by default.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the search.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Model YAML to write here.")] = None,
    as_json: Json = False,
) -> None:
    """Fit anchors by the service, and print them with their figures."""
    fields: dict[str, Any] = {
        "model": model, "image_size": image_size, "threshold": threshold, "per_level": per_level, "seed": seed,
    }  # fmt: skip
    with context.ensure_object(Server).client() as client:
        here = not there and data != "digits"
        found = client.fit_file(Path(data), **fields) if here else client.fit_path(data, **fields)
    if as_json:
        console.show_json(found.model_dump())
    else:
        _show_fit(found)
    if out is not None:
        _write_model(model, found, out)


def _show_fit(found: "FitResult") -> None:
    before, after = found.before.model_dump(), found.after.model_dump()
    names = {"bpr": "best possible recall", "fitness": "fitness", "above": "anchors above threshold"}
    rows = [[text, before[key], after[key]] for key, text in names.items()]
    console.show_table(f"Anchors on {found.boxes} boxes", ["figure", "before", "after"], rows)
    for level, pairs in enumerate(found.anchors):
        console.out.print(f"  level {level}: " + "  ".join(f"{w:.1f},{h:.1f}" for w, h in pairs))
    for line in found.notes:
        console.note(line)


def _write_model(model: str, found: "FitResult", out: Path) -> None:
    from beagle.folders import write_bytes
    from model.spec import load_spec, spec_to_yaml

    fitted = load_spec(model, anchors=found.anchors)
    write_bytes(out, spec_to_yaml(fitted).encode())
    console.done(f"{out} holds {fitted.name} with these anchors")
