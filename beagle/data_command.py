"""`beagle data`: what is wrong with a data set, and what is done about it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beagle import console
from beagle.flags import Json

if TYPE_CHECKING:
    from dataset.check import CheckReport

app = typer.Typer()


@app.callback()
def _data() -> None:
    """Look at a data set."""


@app.command("check")
def check_data(
    data: Annotated[str, typer.Argument(help="data.yaml, instances.json, a folder, or digits.")],
    as_json: Json = False,
    most: Annotated[int, typer.Option("--most", help="Show at most this many faults; 0 for all.")] = 50,
) -> None:
    """List every fault of a data set, with file and line and what is done about it.

    Exit code 1 where a fault makes the data unusable; faults that are mended don't count.
    """
    from dataset.check import check

    report = check(data)
    if as_json:
        console.show_json(report.to_dict())
    else:
        _show(report, most)
    if report.fatal:
        raise typer.Exit(1)


def _show(report: "CheckReport", most: int) -> None:
    shown = report.faults[: most or None]
    if shown:
        rows = [[short(fault.file), fault.line, fault.what, fault.action] for fault in shown]
        console.show_table(f"{len(report.faults)} faults", ["file", "line", "what", "what is done"], rows)
    if len(shown) < len(report.faults):
        console.note(f"{len(report.faults) - len(shown)} more (--most 0 shows all)")
    for line in report.notes:
        console.note(line)
    splits = report.counts.items()
    columns = ["split", "images", "without boxes", "boxes"]
    console.show_table("Splits", columns, [[name, n.images, n.backgrounds, n.boxes] for name, n in splits])
    names = next(iter(report.counts.values())).classes if report.counts else {}
    rows = [[name, *(count.classes[name] for _, count in splits)] for name in names]
    console.show_table("Boxes of each class", ["class", *report.counts], rows)
    if report.fatal:
        console.fail(f"{len(report.fatal)} faults have to be mended before {report.name} can be trained on")
    else:
        console.done(f"{report.name} can be trained on")


def short(path: str | Path) -> str:
    """A path as it is shown: relative to the current folder where it lies under it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)
