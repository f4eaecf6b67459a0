"""`beagle anchors`: judge a model's anchors on a data set, fit new ones, or see how many are worth having."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beagle import console
from beagle.flags import Json

if TYPE_CHECKING:
    from anchors.sweep import Point
    from beagle.anchors_report import Judged
    from beagle.fitting import Fit
    from model.spec import ModelSpec

app = typer.Typer()

Data = Annotated[
    list[str],
    typer.Argument(help="data.yaml, instances.json, a folder, a CSV of shapes, or digits; several too."),
]
Model = Annotated[str, typer.Option("--model", help="A model of `beagle model list`, or a YAML file.")]
ImageSize = Annotated[int, typer.Option("--image-size", help="Longer image side in px.")]
Threshold = Annotated[float, typer.Option("--threshold", help="Largest side ratio of box to anchor.")]
Weights = Annotated[
    list[float] | None, typer.Option("--weight", help="What each data set counts as a whole, in their order.")
]
Ray = Annotated[
    str | None, typer.Option("--ray", help="Read on a Ray cluster: its address, or `local` for this machine.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of the search.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]


@app.command("check")
def check_anchors(
    data: Data,
    model: Model = "yolov5s",
    image_size: ImageSize = 640,
    threshold: Threshold = 4.0,
    weight: Weights = None,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Judge a model's own anchors on the training boxes."""
    from beagle.fitting import Fit

    request = Fit(
        tuple(data), tuple(weight or ()), model, image_size, threshold=threshold, mode="keep", ray=ray
    )
    _run(request, as_json=as_json)


@app.command("fit")
def fit_to_data(
    data: Data,
    model: Model = "yolov5s",
    image_size: ImageSize = 640,
    threshold: Threshold = 4.0,
    per_level: Annotated[
        int, typer.Option("--per-level", help="Anchors a level; the model's by default.")
    ] = 0,
    seed: Seed = 0,
    weight: Weights = None,
    jitter: Annotated[
        float, typer.Option("--jitter", help="Fit for boxes scaled by 1 ± this, as mosaic's scale gene does.")
    ] = 0.0,
    multi_scale: Annotated[
        bool, typer.Option("--multi-scale", help="Fit for image sizes from 0.5 to 1.5, as its training has.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "--write", help="Model YAML to write.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Picture (PNG) to write.")] = None,
    unmatched: Annotated[
        Path | None, typer.Option("--unmatched", help="CSV to write: the boxes that no anchor reaches.")
    ] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Log figures and picture to MLflow.")] = False,
    ray: Ray = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Fit anchors to the training boxes, and write a model YAML that has them."""
    from beagle.anchors_report import draw, write_unmatched
    from beagle.fitting import Fit
    from beagle.folders import CommandError, write_bytes
    from model.spec import load_spec, spec_to_yaml

    target = out or Path(f"{Path(model).stem}-{Path(data[0]).resolve().name.partition('.')[0]}.yaml")
    for path in filter(None, (target, plot, unmatched)):
        if path.exists() and not overwrite:
            raise CommandError(f"{path} exists already: choose another name for it, or say --overwrite")
        if not path.parent.is_dir():
            raise CommandError(f"{path} can't be written: there is no folder {path.parent}")
    if plot is not None and plot.suffix.lower() != ".png":
        raise CommandError(f"{plot}: a picture must be a .png")
    request = Fit(
        tuple(data),
        tuple(weight or ()),
        model,
        image_size,
        threshold=threshold,
        per_level=per_level,
        seed=seed,
        jitter=jitter,
        multi_scale=multi_scale,
        ray=ray,
    )
    judged, spec = _run(request, as_json=as_json)
    if unmatched is not None:
        console.done(f"{unmatched} lists {write_unmatched(judged, unmatched)} boxes that no anchor reaches")
    if plot is not None:
        write_bytes(plot, draw(judged))
        console.done(f"{plot} shows them over the box shapes")
    fitted = load_spec(spec, anchors=judged.choice.anchors)
    write_bytes(target, spec_to_yaml(fitted).encode())
    console.done(f"{target} holds {fitted.name} with these anchors")
    if mlflow:
        _log(request, judged)


@app.command("sweep")
def sweep_numbers(
    data: Data,
    image_sizes: Annotated[str, typer.Option("--image-sizes", help="In px, with commas.")] = "320,640,960",
    counts: Annotated[
        str, typer.Option("--counts", help="Numbers of anchors, with commas.")
    ] = "2,3,4,6,9,12,15",
    threshold: Threshold = 4.0,
    target: Annotated[float, typer.Option("--target", help="Best possible recall to reach.")] = 0.98,
    seed: Seed = 0,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Fitness and recall against the number of anchors and the image size; the knee is marked."""
    from anchors.sweep import sweep
    from beagle.box_sources import gather_boxes, read_sources
    from beagle.fitting import reader

    sizes, numbers = _whole_numbers(image_sizes, "--image-sizes"), _whole_numbers(counts, "--counts")
    boxes = gather_boxes(read_sources(data, console.note, reader(ray)), (), max(sizes))
    with console.bars() as advance:
        points = sweep(
            boxes.wh,
            max(sizes),
            sizes,
            numbers,
            threshold,
            target,
            seed,
            progress=lambda share: advance("fits", round(share * 100), 100),
        )
    if as_json:
        console.show_json([asdict(point) for point in points])
    else:
        _show_sweep(points, target)


def _show_sweep(points: "Sequence[Point]", target: float) -> None:
    from anchors.sweep import find_knee

    rows = []
    for size in dict.fromkeys(point.image_size for point in points):
        of_size = [point for point in points if point.image_size == size]
        knee = find_knee([point.k for point in of_size], [point.metrics.fitness for point in of_size])
        for point in of_size:
            missed = "" if point.reaches_target else f"recall under {target:g}"
            mark = ", ".join(filter(None, ("knee" if point.k == knee else "", missed)))
            rows.append([size, point.k, point.metrics.fitness, point.metrics.bpr, point.ignored, mark])
    console.show_table(
        "Anchors against image size", ["image size", "anchors", "fitness", "BPR", "under 2 px", ""], rows
    )


def _whole_numbers(text: str, name: str) -> list[int]:
    from beagle.folders import CommandError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise CommandError(f"{name} must be whole numbers with commas between, but got {text!r}")
    return sorted({int(part) for part in parts})


def _run(request: "Fit", *, as_json: bool) -> "tuple[Judged, ModelSpec]":
    from beagle.anchors_report import figures, show
    from beagle.fitting import judge

    with console.bars() as advance:
        judged, spec = judge(request, console.note, lambda share: advance("anchors", round(share * 100), 100))
    if as_json:
        console.show_json(figures(judged))
    else:
        show(judged)
    return judged, spec


def _log(request: "Fit", judged: "Judged") -> None:
    from beagle.anchors_report import draw
    from evolve.fit_tracking import log_fit
    from evolve.mlflow_store import default_store

    store = default_store(Path("runs"))
    params = {"data": " ".join(request.data), "model": request.model, "image_size": request.image_size}
    choice = judged.choice
    sides = {"before": asdict(choice.before), "after": asdict(choice.after)}
    metrics = {f"{side}.{name}": value for side, of_side in sides.items() for name, value in of_side.items()}
    run_id = log_fit(
        store,
        {**params, "anchor_t": request.threshold, "anchors": choice.anchors.round(2).tolist()},
        metrics,
        {"anchors.png": draw(judged)},
    )
    console.done(f"MLflow run {run_id} at {store.uri} has the figures and the picture")
