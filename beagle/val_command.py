"""`beagle val`: a checkpoint, measured on a split."""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.flags import Device, Difficult, Json
from beagle.model_flags import Agnostic, Confidence, Iou, MaxDetections, Nms


def val(
    weights: Annotated[Path, typer.Argument(help="Checkpoint of `beagle train`, best.pt say.")],
    data: Annotated[str, typer.Argument(help="data.yaml, instances.json, a folder, or digits.")],
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    batch_size: Annotated[int, typer.Option("--batch-size")] = 16,
    device: Device = "auto",
    tta: Annotated[
        bool, typer.Option("--tta", help="Look at each image three times: slower, better.")
    ] = False,
    difficult: Difficult = "learn",
    confidence: Confidence = 0.001,
    iou: Iou = 0.6,
    nms: Nms = "greedy",
    agnostic: Agnostic = False,
    max_detections: MaxDetections = 300,
    as_json: Json = False,
) -> None:
    """Measure a detector with the COCO metrics, over all classes and for each."""
    from model.suppression import Suppression, check_kind

    suppression = Suppression(
        confidence=confidence,
        iou=iou,
        kind=check_kind(nms),
        multi_label=True,
        agnostic=agnostic,
        max_detections=max_detections,
    )
    from trainer.predict import Measuring, validate

    with console.bars() as advance:
        found = validate(
            weights,
            data,
            split,
            how=Measuring(batch_size=batch_size, device=device, suppression=suppression, tta=tta),
            difficult=difficult,
            progress=advance,
        )
    if as_json:
        console.show_json(found)
        return
    columns = ["precision", "recall", "map50", "map50_95"]
    rows = [["all", *(found[column] for column in columns)]]
    rows += [[row["name"], *(row.get(column) for column in columns)] for row in found["classes"]]
    console.show_table(
        f"{weights} on {split}", ["class", "precision", "recall", "mAP@0.5", "mAP@0.5:0.95"], rows
    )
