"""Where runs and trainings are kept, and what the command refuses to write over."""

from pathlib import Path

from evolve.aside import write_aside
from evolve.store_url import StoreError, StoreUrl
from evolve.stored_run import holds_run, mirror_of, spool_of, store_of


class CommandError(ValueError):
    """What the user asked of the command can't be done."""


def absolute_source(source: str) -> str:
    """A path as an absolute one, so that it means the same in a worker; a built-in name as it is."""
    name, mark, options = source.partition("?")  # a model's options may follow its name
    path = Path(name).expanduser()
    return f"{path.resolve()}{mark}{options}" if path.exists() else source


def check_new_folder(folder: Path) -> None:
    """Refuse a folder that already holds something, or whose store does.

    Raises:
        CommandError: It exists and is not empty.
        StoreError: The store does not answer, or can't hold a run.
    """
    store = store_of(folder)
    if store is not None:
        if holds_run(store.url):
            raise CommandError(
                f"{store.url} exists already: choose another place, or go on with it by --resume"
            )
        store.check()
        return
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


def run_folder(run: Path) -> Path:
    """The folder in which this machine drives a run: the run's own, or a spool where `run` is a store's URL.

    Raises:
        StoreError: The URL is none that a run can be kept at.
    """
    url = StoreUrl.parse(run)
    if url is None:
        return run
    if url.protocol == "memory":
        raise StoreError(f"{url} is seen by one process alone, and trials run in others: give another --out")
    return spool_of(url)


def as_given(run: Path) -> str:
    """A run as the user named it, for a hint; a URL with both of its slashes, of which a `Path` keeps one."""
    return str(StoreUrl.parse(run) or run)


def has_run(folder: Path) -> bool:
    """Whether a run was begun in a folder, or in the store that it is a spool of."""
    store = store_of(folder)
    return (folder / "journal.jsonl").is_file() if store is None else holds_run(store.url)


def find_run(run: Path, *, to_drive: bool = False) -> Path:
    """A run folder by its path, by its name under `runs`, or by its URL: then what is here of it, brought up to date.

    Args:
        run: As the user gave it.
        to_drive: Whether this process will write its journal.

    Raises:
        CommandError: There is no journal; the runs that exist are named.
        StoreError: The store does not answer, or has no such run.
    """
    url = StoreUrl.parse(run)
    if url is not None:
        mirror = mirror_of(url)
        return run_folder(run) if to_drive else mirror
    for folder in (run, Path("runs") / run):
        if (folder / "journal.jsonl").is_file():
            return folder.resolve()
    known = sorted(path.parent.name for path in Path("runs").glob("*/journal.jsonl"))
    hint = f"runs are: {', '.join(known)}" if known else "there are no runs here yet"
    raise CommandError(f"{run} is no run folder, it holds no journal.jsonl ({hint})")


def tracking_folder(folder: Path) -> Path:
    """Where MLflow's copy of a run goes by default: beside the run, or under `runs` for one in a store."""
    return folder.parent if store_of(folder) is None else Path("runs")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file aside and move it into place, so that no half-written file is left.

    Raises:
        CommandError: The folder is missing, or the disk is full.
    """
    try:
        write_aside(path, content)
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}") from error
