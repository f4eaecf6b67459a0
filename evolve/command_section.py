"""A map of a YAML file, read key by key; what is wrong is said with the file and the key."""

import math
from typing import Any

from evolve.command_spec import SpecError
from evolve.command_words import TemplateError, fields_of
from evolve.space import unknown_name


class Section:
    """A map of a file.

    Attributes:
        file: Path, for messages.
        key: Dotted key under which the map stands; empty for the file itself.
        values: The map.
    """

    def __init__(self, values: Any, file: str, key: str) -> None:
        self.file, self.key = file, key
        if not isinstance(values, dict):
            raise self.error("", f"must be a map of keys, but got {values!r:.60}")
        self.values: dict[str, Any] = {str(name): value for name, value in values.items()}

    def error(self, name: str, what: str) -> SpecError:
        """What is wrong with a key's value, as an error to raise."""
        key = ".".join(part for part in (self.key, name) if part)
        return SpecError(f"{self.file}: {key + ': ' if key else ''}{what}")

    def only(self, *known: str) -> None:
        """The error that a key's value is: file, key, and what must hold."""
        for name in self.values:
            if name not in known:
                raise self.error("", unknown_name("key", name, known))

    def section(self, name: str) -> "Section":
        """Refuse a key that is not known, with the nearest one that is."""
        key = ".".join(part for part in (self.key, name) if part)
        return Section(self.values.get(name) or {}, self.file, key)

    def need(self, name: str) -> Any:
        """The map under a key; an empty one where there is none."""
        if self.values.get(name) in (None, "", [], {}):
            raise self.error(name, "must be given")
        return self.values[name]

    def text(self, name: str, default: str = "", *, template: bool = False) -> str:
        """The value of a key that must be given."""
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"must be a text, but got {value!r:.60}")
        if template:
            self.check_template(name, value)
        return value

    def words(self, name: str, *, template: bool = True) -> tuple[str, ...]:
        """A text; with `template` its placeholders are checked."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(w, str | int | float) for w in value):
            raise self.error(name, f"must be a list of words, one argument each, but got {value!r:.60}")
        words = tuple(str(word) for word in value)
        for word in words if template else ():
            self.check_template(name, word)
        return words

    def check_template(self, name: str, value: str) -> None:
        """A list of words, one argument each."""
        try:
            fields_of(value)
        except TemplateError as error:
            raise self.error(name, str(error)) from None

    def number(self, name: str, default: float | None, low: float) -> float | None:
        """Refuse placeholders that there are not."""
        value = self.values.get(name, default)
        if value is None:
            return None
        # YAML 1.1 reads 1e-3 as a text
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and number >= low):
            raise self.error(name, f"must be a number of at least {low:g}, but got {value!r:.60}")
        return number

    def whole(self, name: str, default: int, low: int) -> int:
        """A whole number of at least `low`."""
        """A finite number of at least `low`; None where it is null or missing without a default."""
        value = self.number(name, default, low)
        if value is None or value != int(value):
            raise self.error(name, f"must be a whole number of at least {low}, but got {self.values[name]!r}")
        return int(value)
