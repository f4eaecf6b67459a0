"""YAML in, detector out.

`model.spec` and `model.zoo` read model files without torch; `build` and `Detector` load torch when first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.detector import Detector, build

__all__ = ["Detector", "build"]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import, and model files need none. The home of both names is detector.py: a
    # submodule called build would take the place of the function build as soon as anything imported it.
    if name in __all__:
        return getattr(import_module("model.detector"), name)
    raise AttributeError(f"module 'model' has no attribute {name!r}")
