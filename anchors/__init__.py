"""Anchors: box shapes in, anchors out.

>>> from anchors import fit
>>> found = fit([[10, 20], [30, 30], [90, 40], [200, 180]], levels=2, per_level=2)
>>> found.anchors.shape, found.after.bpr
((2, 2, 2), 1.0)
"""

from importlib import import_module
from typing import Any

from anchors import metrics
from anchors.fit import AnchorFit, fit
from anchors.metrics import AnchorError, AnchorMetrics

__all__ = ["AnchorError", "AnchorFit", "AnchorMetrics", "fit", "metrics"]


def __getattr__(name: str) -> Any:
    # Matplotlib takes half a second to import, and few who fit anchors draw them.
    if name == "plot":
        return import_module("anchors.plot")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
