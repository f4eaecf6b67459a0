"""The data.yaml of an exported folder."""

from pathlib import Path
from typing import Any

import yaml

from dataset import Dataset, Split


def data_files(data: Dataset, target: Path, *, absolute: bool) -> tuple[dict[str, str], list[str]]:
    """data.yaml, with list files where a split is no folder of its own.

    Args:
        data: The data set.
        target: The exported folder: programs look for list files from their own folder, so they get full paths.
        absolute: Full paths in every entry, for a program that reads no key `path`.

    Returns:
        (file name to text, notes)
    """
    texts: dict[str, str] = {}
    entries: dict[str, Any] = {}
    root = data.source if data.source.is_dir() else data.source.parent
    for name, split in data.splits.items():
        folder = own_folder(data, split)
        if folder is None:
            texts[f"{name}.txt"] = "".join(f"{image}\n" for image in split.images)
            entries[name] = str(target.resolve() / f"{name}.txt")
        else:
            entries[name] = str(
                folder if absolute or not folder.is_relative_to(root) else folder.relative_to(root)
            )
    in_root = not texts and not absolute
    content = {
        **({"path": str(root)} if in_root else {}),
        **entries,
        "nc": len(data.names),
        "names": list(data.names),
    }
    head = "# Where the data was when it was exported: edit the paths where it lies elsewhere.\n"
    texts["data.yaml"] = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    notes = []
    if not has_yolo_labels(data.train):
        notes.append(
            f"{data.source} is no YOLO data set: YOLO's programs look for a text file of labels beside each image, "
            "which must be written first."
        )
    return texts, notes


def own_folder(data: Dataset, split: Split) -> Path | None:
    """The folder that holds a split's images and nothing of the others; None where there is none."""
    folders = {image.parent for image in split.images}
    others = {image.parent for other in data.splits.values() if other is not split for image in other.images}
    return next(iter(folders)) if len(folders) == 1 and not folders & others else None


def has_yolo_labels(split: Split) -> bool:
    """Whether the first image with boxes has a text file where YOLO's programs look for it."""
    image = next((image for image, rows in zip(split.images, split.labels, strict=True) if len(rows)), None)
    if image is None or "images" not in image.parts:
        return False
    last = len(image.parts) - 1 - image.parts[::-1].index("images")
    return Path(*image.parts[:last], "labels", *image.parts[last + 1 :]).with_suffix(".txt").is_file()
