"""`beagle export`: the folder that production trains from."""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.flags import Json
from beagle.status_command import Run


def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", help="Folder to make; must not exist.")],
    target_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="beagle, yolov5, scaled-yolov4 or ultralytics; the run's own by default."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Of the production training; 300 by default.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Of the production training; the trials' by default.")
    ] = None,
    choice: Annotated[
        str | None,
        typer.Option(
            "--pick", help="knee, trial:N, or an objective whose best is taken; the fittest by default."
        ),
    ] = None,
    register: Annotated[
        str | None, typer.Option("--register", help="Name of a model in MLflow's registry to add it to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the best configuration: hyperparameters, model with anchors, data, weights, command, provenance."""
    from beagle.folders import find_run, tracking_folder
    from beagle.production import Wanted, export_best

    folder = find_run(run)
    target = export_best(folder, to, Wanted(target_format, epochs, batch_size, choice), console.note)
    version = None
    if register is not None:
        from evolve.mlflow_store import default_store
        from evolve.registry import register_export

        version = register_export(folder, target, register, default_store(tracking_folder(folder)))
    if as_json:
        files = sorted(path.name for path in target.iterdir())
        console.show_json({"folder": target, "files": files, "version": version})
        return
    show_export(target)
    if version is not None:
        console.done(f"registered in MLflow as version {version} of {register}")


def show_export(target: Path) -> None:
    """Print what an exported folder holds."""
    rows = [[path.name, path.stat().st_size] for path in sorted(target.iterdir())]
    console.show_table(str(target), ["file", "bytes"], rows)
    console.done(f"train it with {target / 'train.sh'}; `beagle verify {target}` checks it")
