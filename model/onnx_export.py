"""A detector as an ONNX graph, with or without non-maximum suppression in it. Imported by `model.export` alone.

The packages onnx and onnxscript are extras, so nothing else may import this file at its top.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxscript  # noqa: F401 (torch's exporter needs it: its absence shall be told before the work)
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from model.detector import Detector
from model.suppression import Suppression

INPUT, DECODED, DETECTIONS = "images", "predictions", "detections"
OPSET = 20


class Decoded(nn.Module):
    """The decoded output of a detector alone, as programs outside want it."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, 3, rows, columns) to (batch, P, 5 + classes)."""
        decoded, _ = self.detector(images)
        return decoded if isinstance(decoded, Tensor) else torch.cat(decoded)


def build_onnx(
    detector: Detector, images: Tensor, said: dict[str, Any], suppress: Suppression | None
) -> bytes:
    """Export a fused detector.

    Args:
        detector: fused, in eval mode.
        images: an example of the input, (2, channels, rows, columns); in the graph the batch is free, the sides
            are not.
        said: kept as metadata, JSON.
        suppress: adds greedy suppression by class, one class a prediction; None: the graph gives what `Detector`
            decodes.

    Returns:
        The file. Its input is `images`, RGB in [0, 1]; its output `predictions` (batch, P, 5 + classes), or
        `detections` (batch, most, 6): xyxy px, confidence, class, by falling confidence, rows of zeros at the end.
    """
    with _quiet():
        program = torch.onnx.export(
            Decoded(detector).eval(),
            (images,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[DECODED],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
        )
    model = program.model_proto  # type: ignore[union-attr] # None only where a file is written
    if suppress is not None:
        predictions = int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
        _add_suppression(model.graph, suppress, min(suppress.max_detections, predictions), detector.classes)
    helper.set_model_props(model, {"beagle": json.dumps(said)})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporter says of itself from the user."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _add_suppression(graph: Any, suppress: Suppression, most: int, classes: int) -> None:
    """Append `non_max_suppression` (one class a prediction) to a graph that ends in decoded predictions.

    The best class of each prediction alone has a score, so that ONNX's own suppression, which is by class, keeps each
    at most once; what it keeps is written into a table of zeros, and the best rows of that are taken.
    """
    constants = {
        "n.0": [0], "n.4": [4], "n.5": [5], "n.end": [2**31 - 1], "n.axis": [2], "n.last": [-1],
        "n.most": [most], "n.columns": [0, 2], "n.classes": list(range(classes)),
    }  # fmt: skip
    floats = {"n.half": [0.5], "n.zero": 0.0, "n.iou": [suppress.iou], "n.confidence": [suppress.confidence]}
    for name, whole in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(whole, np.int64), name))
    for name, value in floats.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    learnt = ("Mul", "n.objectness n.probabilities") if classes > 1 else ("Identity", "n.objectness")
    zeros = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    steps: list[tuple[str, str, str, dict[str, Any]]] = [
        ("Slice", f"{DECODED} n.0 n.4 n.axis", "n.xywh", {}),
        ("Slice", f"{DECODED} n.4 n.5 n.axis", "n.objectness", {}),
        ("Slice", f"{DECODED} n.5 n.end n.axis", "n.probabilities", {}),
        (*learnt, "n.scores", {}),  # one class is not learnt: the objectness alone counts
        ("ReduceMax", "n.scores n.axis", "n.best", {"keepdims": 1}),
        ("ArgMax", "n.scores", "n.label", {"axis": 2, "keepdims": 1}),
        ("Equal", "n.label n.classes", "n.chosen", {}),
        ("Where", "n.chosen n.best n.zero", "n.alone", {}),
        ("Transpose", "n.alone", "n.by_class", {"perm": [0, 2, 1]}),
        (
            "NonMaxSuppression",
            "n.xywh n.by_class n.most n.iou n.confidence",
            "n.kept",
            {"center_point_box": 1},
        ),
        ("Gather", "n.kept n.columns", "n.places", {"axis": 1}),  # image, prediction
        ("Squeeze", "n.best n.axis", "n.flat", {}),
        ("GatherND", "n.flat n.places", "n.kept_scores", {}),
        ("Shape", "n.flat", "n.shape", {}),
        ("ConstantOfShape", "n.shape", "n.nothing", {"value": zeros}),
        ("ScatterND", "n.nothing n.places n.kept_scores", "n.table", {}),
        ("TopK", "n.table n.most", "n.top n.rows", {"axis": 1}),
        ("Unsqueeze", "n.rows n.last", "n.at", {}),
        ("Unsqueeze", "n.top n.last", "n.top_column", {}),
        ("GatherND", "n.xywh n.at", "n.top_xywh", {"batch_dims": 1}),
        ("Split", "n.top_xywh", "n.centre n.size", {"axis": 2, "num_outputs": 2}),
        ("Mul", "n.size n.half", "n.reach", {}),
        ("Sub", "n.centre n.reach", "n.near", {}),
        ("Add", "n.centre n.reach", "n.far", {}),
        ("GatherND", "n.label n.at", "n.top_label", {"batch_dims": 1}),
        ("Cast", "n.top_label", "n.top_class", {"to": TensorProto.FLOAT}),
        ("Concat", "n.near n.far n.top_column n.top_class", "n.full", {"axis": 2}),
        ("Greater", "n.top_column n.zero", "n.there", {}),
        ("Where", "n.there n.full n.zero", DETECTIONS, {}),
    ]
    for kind, inputs, outputs, attributes in steps:
        graph.node.append(helper.make_node(kind, inputs.split(), outputs.split(), **attributes))
    batch = graph.output[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(DETECTIONS, TensorProto.FLOAT, [batch, most, 6]))
