"""`beagle predict`: boxes drawn on images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from beagle import console
from beagle.flags import Device, Json
from beagle.model_flags import Agnostic, Confidence, Iou, MaxDetections, Nms

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def predict(
    weights: Annotated[Path, typer.Argument(help="Checkpoint of `beagle train`, best.pt say.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; runs/predict by default.")
    ] = None,
    confidence: Confidence = 0.25,
    iou: Iou = 0.45,
    nms: Nms = "greedy",
    agnostic: Agnostic = False,
    max_detections: MaxDetections = 300,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="By default that of the training.")
    ] = None,
    device: Device = "auto",
    tta: Annotated[
        bool, typer.Option("--tta", help="Look at each image three times: slower, better.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find objects in images, and draw them."""
    from beagle.folders import CommandError, check_new_folder, unused_folder
    from model.suppression import Suppression, check_kind

    suppression = Suppression(
        confidence=confidence,
        iou=iou,
        kind=check_kind(nms),
        agnostic=agnostic,
        max_detections=max_detections,
    )
    folder = out or unused_folder(Path("runs"), "predict")
    check_new_folder(folder)
    files = find_images(images)
    import cv2

    from trainer.images import read_image
    from trainer.predict import draw, load_detector
    from trainer.predict import predict as detect

    loaded = load_detector(weights)
    names = loaded[1]
    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    with console.bars() as advance:
        boxes_of = detect(
            loaded, files, suppression=suppression, image_size=image_size, device=device, tta=tta
        )
        for done, (file, boxes) in enumerate(zip(files, boxes_of, strict=True), start=1):
            target = unused_file(folder, file.stem)
            if not cv2.imwrite(str(target), draw(read_image(file), boxes, names)):
                raise CommandError(f"{target} can't be written (is the disk full?)")
            rows = boxes.tolist()
            found.append({"image": file, "drawn": target, "boxes": [_plain_box(row, names) for row in rows]})
            advance("predict", done, len(files))
    if as_json:
        console.show_json(found)
        return
    count = sum(len(each["boxes"]) for each in found)
    console.done(f"{count} boxes on {len(files)} images")
    console.out.print(str(folder))


def find_images(paths: list[Path]) -> list[Path]:
    """Image files, in order: those named, and those of the folders named.

    Raises:
        CommandError: A path that does not exist, or nothing found.
    """
    from beagle.folders import CommandError

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise CommandError(f"{path}: there is no such image or folder")
    if not files:
        raise CommandError(f"{paths[0]}: no image in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def unused_file(folder: Path, stem: str) -> Path:
    """A PNG of `folder` called `stem`, with a number where two images of other folders share a name."""
    target, number = folder / f"{stem}.png", 1
    while target.exists():
        number += 1
        target = folder / f"{stem}-{number}.png"
    return target


def _plain_box(row: list[float], names: Sequence[str]) -> dict[str, Any]:
    return {
        "class": names[int(row[5])],
        "confidence": round(row[4], 4),
        "xyxy": [round(x, 2) for x in row[:4]],
    }
