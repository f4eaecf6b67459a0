"""`beagle export`: the folder that production trains from."""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.status_command import Run


def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", help="Folder to make; must not exist.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write the best configuration: hyperparameters, model with anchors, weights, command, provenance."""
    from beagle.folders import find_run
    from beagle.production import export_best

    target = export_best(find_run(run), to)
    if as_json:
        console.show_json({"folder": target, "files": sorted(path.name for path in target.iterdir())})
        return
    show_export(target)


def show_export(target: Path) -> None:
    """Print what an exported folder holds."""
    rows = [[path.name, path.stat().st_size] for path in sorted(target.iterdir())]
    console.show_table(str(target), ["file", "bytes"], rows)
    console.done(f"train it with {target / 'train.sh'}")
