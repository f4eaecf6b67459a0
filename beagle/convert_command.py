"""`beagle model convert`: checkpoints of other programs in, and files for other programs out."""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Ours, a .pt of YOLOv5 or Scaled-YOLOv4, a state dict, .safetensors, darknet's .weights."
        ),
    ],
    target: Annotated[
        Path,
        typer.Option(
            "--to", help="File to write: .pt, .safetensors, .onnx, .pt2 (torch.export), .yaml (the model)."
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="beagle, safetensors, yolov5 (a state dict), onnx, torch-export or yaml; by the suffix.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Which model it is of, where the file does not say.")
    ] = None,
    renames: Annotated[
        Path | None, typer.Option("--renames", help="YAML file of `ours: theirs`, names of tensors.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", help="Of ONNX and torch.export; by default that of the training."),
    ] = None,
    nms: Annotated[bool, typer.Option(help="Put non-maximum suppression into the ONNX graph.")] = False,
    confidence: Annotated[float, typer.Option("--confidence", help="Of that suppression.")] = 0.25,
    iou: Annotated[float, typer.Option("--iou", help="Of that suppression.")] = 0.45,
) -> None:
    """Turn a checkpoint into another kind of file. Nothing in it is run."""
    from trainer.convert import Conversion
    from trainer.convert import convert as run_conversion

    notes = run_conversion(
        Conversion(
            source=source,
            target=target,
            format=kind,
            model=model,
            renames=renames,
            image_size=image_size,
            thresholds=(confidence, iou) if nms else None,
        )
    )
    for line in notes:
        console.note(line)
    console.out.print(str(target))
