"""Settings of a place: frozen dataclasses of text, made from what a command line gives and refused at birth."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from cluster.spec import ClusterError


@dataclass(frozen=True)
class Settings:
    """The base of each place's settings: every field is one line of text, empty where it is not given."""

    @classmethod
    def from_dict(cls, given: Mapping[str, str]) -> Self:
        """Settings from names and values; dashes in names stand for underscores.

        Raises:
            ClusterError: There is no such setting (the nearest one is named), or a value is not one line.
        """
        known = [each.name for each in fields(cls)]
        values = {name.replace("-", "_"): value for name, value in given.items()}
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise ClusterError(f"there is no setting {name!r} here: {hint}")
            if not value.isprintable():
                raise ClusterError(f"the setting {name} must be one line of text, but got {value!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, str]:
        """What was given, as plain data."""
        return {each.name: text for each in fields(self) if (text := str(getattr(self, each.name)))}
