"""`beagle model`: the detectors that are built in."""

from collections.abc import Iterable
from typing import Annotated

import typer

from beagle import console

app = typer.Typer()


@app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Name every built-in detector, with its strides and anchors per level."""
    from model.spec import load_spec, zoo_names

    specs = [load_spec(name) for name in zoo_names()]
    rows = [
        [spec.name, " ".join(map(str, spec.strides)), len(spec.anchors[0]), spec.depth, spec.width]
        for spec in specs
    ]
    columns = ["model", "strides", "anchors per level", "depth", "width"]
    if as_json:
        console.show_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        console.show_table("Detectors", columns, rows)


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A model of the list, or a YAML file.")],
    classes: Annotated[int | None, typer.Option("--classes", help="Number of classes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a detector's rows with their parameters, and its anchors."""
    from model import build

    detector = build(name, classes=classes)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in detector.model]
    total = sum(counts)
    rows = [
        [index, _words(row.sources), row.number, row.module, _words(row.args), count]
        for index, (row, count) in enumerate(zip(detector.spec.rows, counts, strict=True))
    ]
    columns = ["row", "from", "number", "module", "arguments", "parameters"]
    if as_json:
        table = [dict(zip(columns, row, strict=True)) for row in rows]
        console.show_json(
            {
                "model": detector.spec.name,
                "classes": detector.classes,
                "parameters": total,
                "strides": detector.strides,
                "anchors": detector.spec.anchors,
                "rows": table,
            }
        )
        return
    console.show_table(
        f"{detector.spec.name}, {detector.classes} classes, {total:,} parameters", columns, rows
    )
    for stride, level in zip(detector.strides, detector.spec.anchors, strict=True):
        console.out.print(f"  stride {stride}: " + "  ".join(f"{w:g},{h:g}" for w, h in level))


def _words(values: Iterable[object]) -> str:
    return " ".join(str(value) for value in values)
