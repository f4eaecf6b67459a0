"""Checkpoints and run files: state only, written aside and moved into place, so none is ever half there."""

import errno
import io
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainer.config import TrainError

VERSION = 1
"""Of the layout of a checkpoint; a reader refuses what it does not know."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values.

    Args:
        path: Its folder must exist; a file there is replaced at once or not at all.
        state: What `load` gives back; `version` is added.

    Raises:
        TrainError: The disk is full or the folder cannot be written.
    """
    # Into memory first: torch's own file writer turns a full disk into a RuntimeError without its cause.
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **state}, buffer)
    write_bytes(path, buffer.getbuffer())


def load(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint; no code in it is run (`weights_only`).

    Raises:
        TrainError: No such file, no checkpoint of ours, damaged, or of a newer version.
    """
    try:
        with warnings.catch_warnings():  # torch warns of pickles that it then refuses
            warnings.simplefilter("ignore")
            state = torch.load(Path(path), map_location=device, weights_only=True)
    except FileNotFoundError:
        raise TrainError(f"no checkpoint at {path}") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(state, dict) or "version" not in state or "ema" not in state:
        raise TrainError(f"{path} is no checkpoint of beagle train")
    if state["version"] != VERSION:
        raise TrainError(f"{path} has version {state['version']}, but this program reads version {VERSION}")
    return state


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file aside, flush it to the disk and move it into place.

    Raises:
        TrainError: The disk is full or the folder cannot be written; the old file is then still whole.
    """
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainError(
                f"the disk is full: {path} could not be written (free some space, then resume)"
            ) from error
        raise TrainError(f"{path} could not be written: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)  # after success there is none; after an interrupt it is worth nothing


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_bytes` does."""
    write_bytes(path, text.encode())
