"""One anchor fit of the service, in a process of its own: it may run out of time or memory, and takes nobody along.

Run as `python -m cluster.fit_worker FOLDER`: reads request.json (and `upload`) there, writes result.json or
error.json.
"""

import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from anchors import fit, metrics
from anchors.metrics import AnchorError, AnchorMetrics
from cluster.service_models import Density, FitFigures, FitResult
from cluster.service_uploads import Limits, Uploaded, Wh, read_upload
from cluster.spec import ClusterError
from dataset import DataError, load
from dataset.shapes_csv import is_shape_table, load_shapes
from evolve.aside import write_aside
from model.errors import ModelError
from model.spec import load_spec, round_image_size

REQUEST, UPLOAD, RESULT, ERROR = "request.json", "upload", "result.json", "error.json"
TARGET_BPR = 0.98
MEMORY_BYTES = 8 << 30
_BINS = 48


def run(folder: Path) -> None:
    """Do what the folder's request asks for."""
    request: dict[str, Any] = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    try:
        result = _fit(folder, request)
    except (ClusterError, DataError, ModelError, AnchorError) as error:
        write_aside(folder / ERROR, json.dumps({"error": " ".join(str(error).split())}))
    except MemoryError:
        write_aside(
            folder / ERROR, json.dumps({"error": "the boxes do not fit into the memory that a fit may have"})
        )
    else:
        write_aside(folder / RESULT, result.model_dump_json())


def _fit(folder: Path, request: dict[str, Any]) -> FitResult:
    began = time.perf_counter()
    spec = load_spec(request["model"])
    notes = []
    size = round_image_size(request["image_size"], spec.grid)
    if size != request["image_size"]:
        notes.append(f"image size {request['image_size']} is no multiple of {spec.grid}: {size} is used")
    boxes = _boxes(folder, request, size)
    own = np.asarray(spec.anchors, dtype=np.float64)
    per_level = request["per_level"] or own.shape[1]
    start = own if per_level == own.shape[1] else None
    threshold = request["threshold"]
    found = fit(boxes.wh, len(own), per_level, threshold, TARGET_BPR, request["seed"], start)
    if not found.reaches_target:
        notes.append(
            f"{found.after.bpr:.4f} of the boxes can be predicted, not {TARGET_BPR}: more anchors or a larger "
            "threshold reach more"
        )
    return FitResult(
        anchors=np.round(found.anchors, 2).tolist(),
        model_anchors=own.tolist(),
        strides=list(spec.strides),
        before=_figures(metrics.evaluate(boxes.wh, own, threshold)),
        after=_figures(found.after),
        boxes=len(boxes.wh),
        image_size=size,
        threshold=threshold,
        target_bpr=TARGET_BPR,
        seconds=round(time.perf_counter() - began, 3),
        density=density(boxes.wh),
        notes=[*boxes.notes, *notes],
    )


def _boxes(folder: Path, request: dict[str, Any], image_size: int) -> Uploaded:
    if "upload" in request:
        limits = Limits(request["expanded_bytes"])
        return read_upload(folder / UPLOAD, request["upload"], image_size, limits)
    path = request["path"]
    if is_shape_table(path):
        return Uploaded(load_shapes(Path(path)).shapes(image_size), ())
    dataset = load(path)
    return Uploaded(dataset.shapes(image_size), dataset.notes)


def _figures(of: AnchorMetrics) -> FitFigures:
    return FitFigures(bpr=of.bpr, fitness=of.fitness, above=of.aat)


def density(wh: Wh) -> Density:
    """Counts of box shapes on a grid of logarithms, so that small boxes are seen beside large ones."""
    logs = np.log2(np.maximum(wh, 2.0**-4))
    low, high = np.floor(logs.min(axis=0)), np.ceil(logs.max(axis=0) + 1e-9)
    edges = [np.linspace(low[side], max(high[side], low[side] + 1), _BINS + 1) for side in (0, 1)]
    counts, _, _ = np.histogram2d(logs[:, 1], logs[:, 0], bins=(edges[1], edges[0]))
    return Density(
        log2_w_edges=edges[0].round(4).tolist(),
        log2_h_edges=edges[1].round(4).tolist(),
        counts=counts.astype(int).tolist(),
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    run(Path(sys.argv[1]))
