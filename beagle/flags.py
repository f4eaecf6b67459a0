"""Flags that several commands share; those of models and of a ladder of epochs are in files of their own."""

from typing import Annotated

import typer

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[int, typer.Option("--workers", help="Loader processes of a training.")]
Schedule = Annotated[str, typer.Option("--schedule", help="linear or cosine.")]
PreciseBn = Annotated[
    int,
    typer.Option(
        "--precise-bn",
        help="Batches from which batch norm's statistics are estimated anew for an evaluation.",
    ),
]
EmaShare = Annotated[
    float,
    typer.Option(
        "--ema-share",
        help="Share of the updates so far that the averaged weights span at least; 0 averages as YOLOv5 does.",
    ),
]
Cache = Annotated[str, typer.Option("--cache", help="Keep decoded images in ram, on disk, or off.")]
Rect = Annotated[
    bool,
    typer.Option("--rect", help="Batches in the least shape that holds their images; no mosaics."),
]
MultiScale = Annotated[
    bool, typer.Option("--multi-scale", help="Batches of 0.5 to 1.5 times the image size.")
]
Pipeline = Annotated[
    str, typer.Option("--pipeline", help="Augment on the cpu, the device, or auto: a GPU with room.")
]
Difficult = Annotated[
    str, typer.Option("--difficult", help="VOC objects called difficult: learn (count), or ignore.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Silence = Annotated[
    float | None,
    typer.Option(
        "--silence",
        help="Seconds without an epoch after which a trial is ended and retried; ten of the longest by default.",
    ),
]
