"""Recognises what kind of data set a file or folder is, and hands it to the reader of that kind."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dataset import coco, voc, yolo
from dataset.dataset import DataError
from dataset.parallel import MapFiles
from dataset.sources import RawSet, Survey

_YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_YAML_SUFFIXES = frozenset({".yaml", ".yml"})

READERS: Mapping[str, Callable[[Survey, MapFiles | None], RawSet]] = {
    "coco": lambda survey, _: coco.read_labels(survey),  # one file for each split: nothing to spread
    "voc": voc.read_labels,
    "yolo": yolo.read_labels,
}


def read_labels(survey: Survey, map_files: MapFiles | None = None) -> RawSet:
    """What the label files of a survey say; `map_files` spreads the reading of many (see `dataset.load`)."""
    return READERS[survey.kind](survey, map_files)


def survey(source: Path) -> Survey:
    """Find the images and label files of a data set.

    Args:
        source: Absolute path of a data.yaml, a COCO json, or a folder: with a data.yaml, of VOC, COCO or YOLO files,
            or with one such folder in it. They are looked for in this order.

    Raises:
        DataError: There is no such file, or nothing in it is recognised.
    """
    if not source.exists():
        raise DataError(
            f"{source} must be a data.yaml, a COCO json or a data folder, but there is no such file"
        )
    if source.is_dir():
        return replace(_survey_folder(source), source=source)
    if source.suffix.lower() in _YAML_SUFFIXES:
        return yolo.survey_yaml(source)
    if source.suffix.lower() == ".json":
        return coco.survey_file(source)
    raise DataError(
        f"{source} must be a data.yaml, a COCO json or a data folder, but is a {source.suffix or 'plain'} file"
    )


def _survey_folder(folder: Path) -> Survey:
    found = _survey_one(folder)
    if found is not None:
        return found
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    below = [found for found in map(_survey_one, inner) if found is not None]
    if len(below) == 1:
        return below[0]
    if below:
        names = ", ".join(found.root.name for found in below[:5])
        raise DataError(
            f"{folder} must hold one data set, but holds {len(below)} ({names}): name one of them"
        )
    raise DataError(
        f"{folder} must hold a data.yaml, COCO json files, Annotations/ (VOC) or images/ and labels/ (YOLO), "
        "but none of them is there"
    )


def _survey_one(folder: Path) -> Survey | None:
    for name in _YAML_NAMES:
        if (folder / name).is_file():
            return yolo.survey_yaml(folder / name)
    return voc.survey_folder(folder) or coco.survey_folder(folder) or yolo.survey_folder(folder)
