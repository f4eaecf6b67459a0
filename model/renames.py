"""A mapping file `ours: theirs`, for state dicts whose tensors have other names."""

from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shorten

import yaml
from torch import Tensor

from model.rows import ModelError, nearest


def load_renames(path: str | Path) -> dict[str, str]:
    """Read a YAML file of `ours: theirs`.

    Both sides are names of tensors, or both are beginnings of names that end in a dot (`model.0.: backbone.stem.`).

    Raises:
        ModelError: no such file, no such mapping, or two names of ours for one of theirs.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"there is no mapping file {path}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(raw, dict) or not raw:
        raise ModelError(f"{path} must be a mapping of ours: theirs, but got {shorten(raw)}")
    taken: dict[str, str] = {}
    for ours, theirs in raw.items():
        if not isinstance(ours, str) or not isinstance(theirs, str) or not ours or not theirs:
            raise ModelError(f"{path}: ours: theirs must both be names, but got {ours!r:.80}: {theirs!r:.80}")
        if ours.endswith(".") != theirs.endswith("."):
            raise ModelError(f"{path}: both {ours!r} and {theirs!r} must end in a dot, or neither")
        if theirs in taken:
            raise ModelError(f"{path}: both {taken[theirs]!r} and {ours!r} are to be {theirs!r}")
        taken[theirs] = ours
    return dict(raw)


def rename(state: Mapping[str, Tensor], renames: Mapping[str, str], where: str) -> dict[str, Tensor]:
    """Give tensors our names; one that the mapping doesn't reach keeps its own.

    Args:
        state: tensors by their names.
        renames: ours: theirs; whole names go before beginnings, long beginnings before short ones.
        where: opens the error's message.

    Raises:
        ModelError: a name of the mapping is not in the state, or two tensors get one name.
    """
    inverse = {theirs: ours for ours, theirs in renames.items()}
    parts = sorted((name for name in inverse if name.endswith(".")), key=len, reverse=True)
    used: set[str] = set()
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part = name if name in inverse else next((part for part in parts if name.startswith(part)), "")
        ours = inverse[part] + name[len(part) :] if part else name
        used.add(part)
        if ours in renamed:
            raise ModelError(f"{where}: two tensors are called {ours!r} after renaming")
        renamed[ours] = tensor
    unused = [theirs for theirs in inverse if theirs not in used]
    if unused:
        raise ModelError(
            f"{where}: there is no tensor {unused[0]!r}; {nearest(unused[0], list(state)[:2000])[:300]}"
        )
    return renamed
