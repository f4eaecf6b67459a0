"""The room's error, and the ends of its messages."""

import difflib
from collections.abc import Iterable


class ModelError(ValueError):
    """A model file or name that the user can mend; the message is one line that says where."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: the known name most like `name`, or all of them where none is."""
    known = list(known)
    name = name[:80]
    lowered = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"did you mean {lowered[close[0]]!r}?" if close else f"known: {', '.join(known)}"
