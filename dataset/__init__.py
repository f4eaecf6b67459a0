"""What a detection data set says: ``load`` reads YOLO txt, COCO json and Pascal VOC into one frozen ``Dataset``."""

from dataset.dataset import DataError, Dataset, Split
from dataset.loading import load

__all__ = ["DataError", "Dataset", "Split", "load"]
