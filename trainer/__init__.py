"""One detector, trained, evaluated and checkpointed: `train(TrainConfig(...))` gives a `TrainResult`.

`train` is imported when it is first asked for: checking a configuration costs no import of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainer.config import Hyperparameters, TrainConfig, TrainError, TrainResult

if TYPE_CHECKING:
    from trainer.loop import train

__all__ = ["Hyperparameters", "TrainConfig", "TrainError", "TrainResult", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module("trainer.loop").train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
