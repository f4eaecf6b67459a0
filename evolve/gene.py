"""One gene: a hyperparameter, its range or its choices, and its coordinate in [0, 1]."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

SIGNIFICANT_DIGITS = 5

Value = float | int | str
"""What a gene is decoded to: a number, or one of its choices."""


class EvolveError(ValueError):
    """Base of what this room raises for a mistake that the user can mend."""


class SpaceError(EvolveError):
    """A gene or a configuration that cannot be."""


@dataclass(frozen=True)
class Gene:
    """One hyperparameter and its range.

    A decoded value has five significant digits (more where the range is narrow beside its values), so that
    what is printed, trained and exported is the same number. Bounds are given back exactly; an integer
    gene gives an int.

    A gene of choices has no order: its range is cut into equal bins, one for each choice.

    Attributes:
        name: what the trial calls it.
        low: least value, in the gene's own unit; not used with choices.
        high: greatest value, more than `low`; not used with choices.
        start: where the search begins; None for a gene without a default, which then begins in the middle (of
            choices: with the first).
        log: the encoded scale is the logarithm of the value. A gene whose `low` is 0 is linear all the
            same, since the logarithm has no end there, and a gene that starts at 0 must be able to leave it.
        integer: whole numbers only, bounds included.
        choices: the values of a gene that is no range, two or more, numbers or words.
        when: another gene's name and the values of it under which this gene matters; elsewhere it rests at its start.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    start: Value | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Value, ...] = ()
    when: tuple[str, tuple[Value, ...]] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be searched.

        Raises:
            SpaceError: a bound is not a finite number, `low < high` does not hold, a gene on a log scale
                goes below 0, an integer gene has a fraction, the choices are fewer than two or not all different,
                or the start is outside the bounds or no choice.
        """
        if not str(self.name).strip():
            raise SpaceError(f"a gene's name must be a word, but got {self.name!r}")
        if self.choices:
            self._check_choices()
            return
        self._number("low", self.low)
        self._number("high", self.high)
        if self.start is not None:
            self._number("start", self.start)
        if not self.low < self.high:
            raise SpaceError(
                f"gene {self.name}: low < high must hold, but got low={self.low}, high={self.high}"
            )
        if not math.isfinite(self.high - self.low):
            raise SpaceError(
                f"gene {self.name}: high - low must be finite, but got {self.low} to {self.high}"
            )
        if self.log and self.low < 0:
            raise SpaceError(f"gene {self.name}: low must be >= 0 on a log scale, but got low={self.low}")
        if self.start is not None and not self.low <= self._number("start", self.start) <= self.high:
            raise SpaceError(
                f"gene {self.name}: start must be in [low, high], but got start={self.start} outside "
                f"[{self.low}, {self.high}]"
            )

    def _check_choices(self) -> None:
        plain = [type(choice) in (int, float, str) for choice in self.choices]
        if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices) or not all(plain):
            raise SpaceError(
                f"gene {self.name}: choices must be two or more different numbers or words, but got "
                f"{list(self.choices)}"
            )
        if self.log or self.integer:
            raise SpaceError(f"gene {self.name}: log and integer are of a range, but it has choices")
        if self.start is not None:
            self.check(self.start)
        numbers = [float(choice) for choice in self.choices if not isinstance(choice, str)]
        if len(numbers) == len(self.choices):
            # So that whoever draws its range sees where the choices lie.
            object.__setattr__(self, "low", min(numbers))
            object.__setattr__(self, "high", max(numbers))

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SpaceError(f"gene {self.name}: {key} must be a finite number, but got {value!r}")
        if self.integer and value != int(value):
            raise SpaceError(f"gene {self.name}: {key} must be a whole number, but got {value!r}")
        return float(value)

    @property
    def logarithmic(self) -> bool:
        """Whether the encoded scale is in fact the logarithm (asked for, and `low` above 0)."""
        return self.log and self.low > 0

    @property
    def first(self) -> Value:
        """The value of the start configuration: `start`, or the middle of the encoded range, or the first choice."""
        if self.start is None:
            return self.choices[0] if self.choices else self.decode(0.5)
        return self.check(self.start)

    @property
    def cells(self) -> float:
        """How many values there are: infinite for a range of real numbers."""
        if self.choices:
            return len(self.choices)
        return self.high - self.low + 1 if self.integer else math.inf

    def check(self, value: object) -> Value:
        """Give back a value of this gene as a plain number, or the choice that it is.

        Raises:
            SpaceError: it is not a finite number in [low, high], not whole where it must be, or none of the choices.
        """
        if self.choices:
            for choice in self.choices:
                if value == choice and not isinstance(value, bool):
                    return choice
            known = ", ".join(map(str, self.choices))
            raise SpaceError(f"gene {self.name}: value must be one of {known}, but got {value!r}")
        number = self._number("value", value)
        if not self.low <= number <= self.high:
            raise SpaceError(
                f"gene {self.name}: value must be in [low, high], but got {value!r} outside [{self.low}, {self.high}]"
            )
        return int(number) if self.integer else number

    def encode(self, value: Value) -> float:
        """Map a value in [low, high] to [0, 1], or a choice to the middle of its bin.

        Raises:
            SpaceError: the value is outside the gene's range, or no choice.
        """
        if self.choices:
            return (self.choices.index(self.check(value)) + 0.5) / len(self.choices)
        number = float(self.check(value))
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            unit = (math.log(number) - low) / (high - low)
        else:
            unit = (number - self.low) / (self.high - self.low)
        return min(max(unit, 0.0), 1.0)

    def decode(self, unit: float) -> Value:
        """Map [0, 1] to a value, rounded to five significant digits; 0 and 1 give the bounds exactly.

        Raises:
            SpaceError: `unit` is outside [0, 1].
        """
        if not 0.0 <= unit <= 1.0:
            raise SpaceError(f"gene {self.name}: an encoded value must be in [0, 1], but got {unit!r}")
        if self.choices:
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        if unit in (0.0, 1.0):
            bound = self.high if unit else self.low
            return int(bound) if self.integer else float(bound)
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + (high - low) * float(unit))
        else:
            value = self.low + (self.high - self.low) * float(unit)
        # Rounding may step over a bound that has more digits than are kept.
        if self.integer:
            return int(min(max(round(value), self.low), self.high))
        return min(max(float(f"{value:.{self._digits}g}"), float(self.low)), float(self.high))

    @property
    def _digits(self) -> int:
        """Significant digits kept: more than five only for a range that is narrow beside its values."""
        widest = max(abs(self.low), abs(self.high)) / (self.high - self.low)
        return min(SIGNIFICANT_DIGITS + max(0, math.floor(math.log10(widest))), 17)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `Space.from_dict` reads back."""
        data: dict[str, Any] = {"name": self.name}
        if self.choices:
            data |= {"choices": list(self.choices), "start": self.start}
        else:
            numbers = {"low": self.low, "high": self.high, "start": self.start}
            data |= numbers | {"log": self.log, "integer": self.integer}
        if self.when is not None:
            data["when"] = {self.when[0]: list(self.when[1])}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote, or a person: start, log, integer, choices and when may be left out.

        Raises:
            SpaceError: a key is missing or unknown, or the gene cannot be.
        """
        known = tuple(field.name for field in fields(cls))
        name = data.get("name")
        for key in data:
            if key not in known:
                raise SpaceError(f"gene {name}: {unknown_name('key', key, known)}")
        for key in ("name",) if data.get("choices") else ("name", "low", "high"):
            if key not in data:
                raise SpaceError(f"gene {name}: {key} must be given, but got only {sorted(data)}")
        values = dict(data)
        if "choices" in values:
            if not isinstance(values["choices"], list | tuple):
                raise SpaceError(f"gene {name}: choices must be a list, but got {values['choices']!r}")
            values["choices"] = tuple(values["choices"])
        if values.get("when") is not None:
            values["when"] = _condition(name, values["when"])
        return cls(**values)


def _condition(name: object, when: object) -> tuple[str, tuple[Value, ...]]:
    """Read `{gene: value}` or `{gene: [values]}`."""
    if not isinstance(when, Mapping) or len(when) != 1:
        raise SpaceError(f"gene {name}: when must be one gene and its value or values, but got {when!r}")
    (other, values), *_ = when.items()
    return str(other), tuple(values) if isinstance(values, list | tuple) else (values,)


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """Say in words that a name is unknown, with the nearest known one."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    return f"{what} {name!r} is unknown; {hint}"
