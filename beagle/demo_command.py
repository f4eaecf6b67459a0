"""`beagle demo`: the whole way once, on the built-in data set."""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console

GENES = ("lr0", "box", "cls", "mosaic", "scale", "translate")


def demo(
    trials: Annotated[int, typer.Option("--trials")] = 10,
    epochs: Annotated[int, typer.Option("--epochs", help="Of each trial.")] = 12,
    concurrent: Annotated[int, typer.Option("--concurrent", help="Trials at once.")] = 2,
    runs: Annotated[Path, typer.Option("--runs", help="Folder for the run.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Fit anchors, evolve a small detector, and export it, on handwritten digits: nothing is downloaded."""
    from beagle.anchors_report import show_choice
    from beagle.export_command import show_export
    from beagle.folders import unused_folder
    from beagle.production import export_best
    from beagle.resume_command import finish
    from beagle.wiring import EvolveOptions, start_run
    from evolve.ladder import Ladder
    from evolve.ray_driver import Resources
    from trainer.config import Hyperparameters

    folder = unused_folder(runs, "demo")
    console.err.rule("1. data and anchors")
    options = EvolveOptions(
        data="digits",
        model="yolov5n",
        trials=trials,
        ladder=Ladder((epochs,)),
        batch_size=16,
        image_size=128,
        hyp=Hyperparameters(fliplr=0.0),  # a mirrored 2 is no 2
        genes=GENES,
        anchors="fit",
        seed=seed,
    )
    found = start_run(folder, options, Resources(cpus=1.0, concurrent=concurrent), console.note)
    show_choice(found)
    console.err.rule(f"2. evolution: {trials} trainings, {concurrent} at once")
    state = finish(folder, as_json=False)
    console.err.rule("3. export")
    target = export_best(folder, unused_folder(folder, "production"))
    show_export(target)
    measured = state.measured()
    if measured is not None and measured.start is not None:
        start, evolved = measured.start.mean, measured.standing.mean
        console.done(f"fitness {start:.4f} with the defaults, {evolved:.4f} evolved")
    console.err.rule("what to try next")
    console.out.print("beagle data check YOUR_DATA")
    console.out.print("beagle anchors fit YOUR_DATA --model yolov5s --image-size 640")
    console.out.print("beagle evolve YOUR_DATA --model yolov5s --image-size 640 --trials 100")
