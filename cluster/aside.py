"""Files that are there as a whole or not at all."""

import os
from pathlib import Path


def write_aside(path: Path, text: str) -> None:
    """Write a file aside, flush it to the disk and move it into place: whoever sees it sees all of it.

    Raises:
        OSError: It can't be written; what was there is still whole.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
