"""Files that are there as a whole or not at all."""

import os
import threading
from pathlib import Path


def write_aside(path: Path, content: str | bytes) -> None:
    """Write a file aside, flush it to the disk and move it into place: whoever sees it sees all of it.

    Args:
        path: Where it is to be; its folder exists.
        content: Text, as UTF-8, or bytes.

    Raises:
        OSError: It can't be written; what was there is still whole, and nothing half-written stays beside it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with aside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
