"""`beagle model`: the detectors that are built in, and any model file, in figures."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beagle import console
from beagle.flags import Json

if TYPE_CHECKING:
    from model.anatomy import Anatomy

app = typer.Typer()


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """Name every built-in detector, with its family, strides, anchors per level and usual image size."""
    from model.spec import load_spec, zoo_names

    specs = [load_spec(name) for name in zoo_names()]
    rows = [
        [
            spec.name,
            spec.options.family,
            " ".join(map(str, spec.strides)),
            len(spec.anchors[0]),
            spec.depth,
            spec.width,
            spec.image_size,
        ]
        for spec in specs
    ]
    columns = ["model", "family", "strides", "anchors per level", "depth", "width", "image size"]
    if as_json:
        console.show_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        console.show_table("Detectors", columns, rows)


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A model of the list, or a YAML file.")],
    classes: Annotated[int | None, typer.Option("--classes", help="Number of classes.")] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Px that operations are counted for.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a detector's rows, parameters and operations, and what each level sees and reaches."""
    from model.anatomy import dissect
    from model.spec import load_spec

    anatomy = dissect(load_spec(name, classes=classes), image_size)
    if as_json:
        console.show_json(_as_data(anatomy))
    else:
        _show(anatomy)


COLUMNS = ["row", "from", "number", "module", "arguments", "channels", "stride", "parameters", "GFLOPs"]


def _cells(anatomy: "Anatomy") -> list[list[Any]]:
    return [
        [
            row.index,
            _words(row.sources),
            row.number,
            row.module,
            _words(row.args),
            row.channels or None,
            float(row.stride) if row.channels else None,
            row.parameters,
            round(row.gflops, 4),
        ]
        for row in anatomy.rows
    ]


def _as_data(anatomy: "Anatomy") -> dict[str, Any]:
    spec = anatomy.spec
    levels = [
        {
            **asdict(level),
            "receptive_field": level.receptive_field if math.isfinite(level.receptive_field) else None,
            "anchors": anchors,
        }
        for level, anchors in zip(anatomy.levels, spec.anchors, strict=True)
    ]
    return {
        "model": spec.name,
        "classes": spec.classes,
        "parameters": anatomy.parameters,
        "gflops": anatomy.gflops,
        "image_size": anatomy.image_size,
        "strides": spec.strides,
        "anchors": spec.anchors,
        "activation": str(spec.activation or spec.options.about.backbone),
        "loss": spec.options.scheme,
        "options": asdict(spec.options),
        "levels": levels,
        "rows": [dict(zip(COLUMNS, cells, strict=True)) for cells in _cells(anatomy)],
        "notes": spec.notes,
    }


def _show(anatomy: "Anatomy") -> None:
    spec, (height, width) = anatomy.spec, anatomy.image_size
    for line in spec.notes:
        console.note(line)
    console.show_table(
        f"{spec.name}, {spec.classes} classes: {anatomy.parameters:,} parameters, "
        f"{anatomy.gflops:.1f} GFLOPs at {height} × {width} px (two a multiply-add)",
        COLUMNS,
        _cells(anatomy),
    )
    levels = [
        [
            level.stride,
            level.receptive_field if math.isfinite(level.receptive_field) else "whole image",
            "  ".join(f"{w:g},{h:g}" for w, h in anchors),
            "{:.4g} to {:.4g}".format(*level.widths),
            "{:.4g} to {:.4g}".format(*level.heights),
        ]
        for level, anchors in zip(anatomy.levels, spec.anchors, strict=True)
    ]
    console.show_table(
        "Levels, in px: what a cell sees, and the boxes that anchors match within a factor of 4",
        ["stride", "receptive field", "anchors", "widths", "heights"],
        levels,
    )


def _words(values: Iterable[object]) -> str:
    return " ".join(str(value) for value in values)
