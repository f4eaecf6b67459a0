"""Where runs and trainings are kept, and what the command refuses to write over."""

import os
from pathlib import Path


class CommandError(ValueError):
    """What the user asked of the command can't be done."""


def absolute_source(source: str) -> str:
    """A path as an absolute one, so that it means the same in a worker; a built-in name as it is."""
    name, mark, options = source.partition("?")  # a model's options may follow its name
    path = Path(name).expanduser()
    return f"{path.resolve()}{mark}{options}" if path.exists() else source


def check_new_folder(folder: Path) -> None:
    """Refuse a folder that already holds something.

    Raises:
        CommandError: It exists and is not empty.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise CommandError(f"{folder} exists already: choose another folder, or remove that one")
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file: choose another folder")


def unused_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name-2`, `name-3`, … that does not exist."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def find_run(run: Path) -> Path:
    """A run folder by its path, or by its name under `runs`.

    Raises:
        CommandError: There is no journal; the runs that exist are named.
    """
    for folder in (run, Path("runs") / run):
        if (folder / "journal.jsonl").is_file():
            return folder.resolve()
    known = sorted(path.parent.name for path in Path("runs").glob("*/journal.jsonl"))
    hint = f"runs are: {', '.join(known)}" if known else "there are no runs here yet"
    raise CommandError(f"{run} is no run folder, it holds no journal.jsonl ({hint})")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file aside and move it into place, so that no half-written file is left.

    Raises:
        CommandError: The folder is missing, or the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise CommandError(f"{path} can't be written: {error.strerror}") from error
