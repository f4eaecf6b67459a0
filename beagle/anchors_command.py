"""`beagle anchors`: judge a model's anchors on a data set, or fit new ones."""

import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beagle import console

if TYPE_CHECKING:
    from beagle.fitting import FittedAnchors, Inputs

app = typer.Typer()

Data = Annotated[str, typer.Argument(help="data.yaml, instances.json, a folder, or digits.")]
Model = Annotated[str, typer.Option("--model", help="A model of `beagle model list`, or a YAML file.")]
ImageSize = Annotated[int, typer.Option("--image-size", help="Longer image side in px.")]
Threshold = Annotated[float, typer.Option("--threshold", help="Largest side ratio of box to anchor.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

FIGURES = {
    "bpr": "best possible recall",
    "aat": "anchors above threshold",
    "fitness": "fitness",
    "mean_best_iou": "mean best IoU",
    "mean_best_ratio": "mean best ratio",
}


@app.command("check")
def check_anchors(
    data: Data,
    model: Model = "yolov5s",
    image_size: ImageSize = 640,
    threshold: Threshold = 4.0,
    as_json: Json = False,
) -> None:
    """Judge a model's own anchors on the training boxes."""
    _run(data, model, image_size, threshold, mode="keep", seed=0, as_json=as_json)


@app.command("fit")
def fit_to_data(
    data: Data,
    model: Model = "yolov5s",
    image_size: ImageSize = 640,
    threshold: Threshold = 4.0,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Model YAML to write.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Picture (PNG) to write.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: Json = False,
) -> None:
    """Fit anchors to the training boxes, and write a model YAML that has them."""
    from beagle.folders import CommandError, write_bytes
    from model.spec import load_spec, spec_to_yaml

    target = out or Path(f"{Path(model).stem}-{Path(data).resolve().stem}.yaml")
    for path in filter(None, (target, plot)):
        if path.exists() and not overwrite:
            raise CommandError(
                f"{path} exists already: choose another with --out or --plot, or say --overwrite"
            )
        if not path.parent.is_dir():
            raise CommandError(f"{path} can't be written: there is no folder {path.parent}")
    if plot is not None and plot.suffix.lower() != ".png":
        raise CommandError(f"{plot}: a picture must be a .png")
    found, inputs = _run(data, model, image_size, threshold, mode="fit", seed=seed, as_json=as_json)
    if plot is not None:
        from anchors.plot import plot_anchors

        picture = io.BytesIO()
        plot_anchors(inputs.data.shapes(inputs.image_size), found.anchors, picture, threshold=threshold)
        write_bytes(plot, picture.getvalue())
        console.done(f"{plot} shows them over the box shapes")
    fitted = load_spec(inputs.spec, anchors=found.anchors)
    write_bytes(target, spec_to_yaml(fitted).encode())
    console.done(f"{target} holds {fitted.name} with these anchors")


def _run(
    data: str, model: str, image_size: int, threshold: float, *, mode: str, seed: int, as_json: bool
) -> "tuple[FittedAnchors, Inputs]":
    from beagle.fitting import fit_anchors, load_inputs
    from trainer.config import Hyperparameters

    inputs = load_inputs(data, model, image_size, console.note)
    with console.bars() as advance:
        found = fit_anchors(
            inputs,
            mode=mode,
            hyp=Hyperparameters(anchor_t=threshold),
            seed=seed,
            progress=lambda share: advance("anchors", round(share * 100), 100),
        )
    if as_json:
        console.show_json(_figures(found))
    else:
        show_figures(found)
    return found, inputs


def _figures(found: "FittedAnchors") -> dict[str, Any]:
    figures: dict[str, Any] = {
        "anchors": found.anchors.round(2).tolist(),
        "before": asdict(found.before),
        "after": asdict(found.after),
    }
    if found.fitted is not None:
        fit = found.fitted
        figures |= {
            "boxes": fit.boxes,
            "ignored": fit.ignored,
            "unreachable": fit.unreachable,
            "seconds": fit.seconds,
        }
    return figures


def show_figures(found: "FittedAnchors") -> None:
    """Print figures before and after, and the anchors."""
    before, after = asdict(found.before), asdict(found.after)
    columns = ["figure", "before", "after"] if found.fitted else ["figure", "value"]
    rows = [[text, before[key], after[key]][: len(columns)] for key, text in FIGURES.items()]
    console.show_table("Anchors on the training boxes", columns, rows)
    for level, pairs in enumerate(found.anchors):
        shown = "  ".join(f"{w:.1f},{h:.1f}" for w, h in pairs)
        console.out.print(f"  level {level}: {shown}")
    if found.fitted is not None:
        fit = found.fitted
        console.note(f"{fit.boxes} boxes, {fit.ignored} under 2 px left out, {fit.seconds:.1f} s")
        if fit.unreachable:
            console.note(f"{fit.unreachable} boxes are reached by none of these anchors")
