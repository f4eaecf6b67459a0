"""Files that processes of one machine map together: found by a key, deleted when nobody uses them any more.

Each user holds a shared lock. Whoever can turn it into an exclusive one is alone.
"""

import fcntl
import logging
import os
import re
import shutil
import socket
import stat
from pathlib import Path

from dataset.cache import cache_folder

logger = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (our folder in it is refused unless it is a folder and ours)
_KEY = re.compile("[0-9a-f]{32}")


def open_shared(key: str, length: int, header: int, budget: int) -> tuple[Path, int] | None:
    """The file of a key and its descriptor, `length` bytes long and locked as in use; None without a place for it."""
    wanted = min(length, budget)
    for folder in (
        _SHARED_MEMORY / f"beagle-{os.getuid()}",
        cache_folder() / "shared" / socket.gethostname(),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = (
                folder.lstat()
            )  # in a folder that all may write to, this could be another user's, or a link
            if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
                continue
            _sweep(folder, key)
            path = folder / key
            if not path.exists() and shutil.disk_usage(folder).free < 2 * wanted:
                continue
            return path, _open(path, length, header)
        except OSError as error:
            logger.debug("no shared images in %s: %s", folder, error)
    return None


def _open(path: Path, length: int, header: int) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_SH)
        if _is_at(path, file):
            break
        os.close(file)  # deleted by who left last, between our opening and locking it
    try:
        if os.fstat(file).st_size != length:
            os.ftruncate(file, length)  # all who come first do the same; zeros say that nothing is there
        os.posix_fallocate(file, 0, header)
    except OSError:
        os.close(file)
        raise
    return file


def _is_at(path: Path, file: int) -> bool:
    try:
        return path.lstat().st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False


def leave(path: Path, file: int, owner: int) -> None:
    """Close the file, and delete it when no other process has it open."""
    if os.getpid() == owner:  # a forked child has the lock in common with its parent
        _delete_if_alone(path, file)
    os.close(file)


def _delete_if_alone(path: Path, file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # in use
    if _is_at(path, file):
        path.unlink(missing_ok=True)


def _sweep(folder: Path, key: str) -> None:
    """Delete the files of other keys that nobody uses any more."""
    for path in folder.iterdir():
        if path.name == key or not _KEY.fullmatch(path.name):
            continue
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        _delete_if_alone(path, file)
        os.close(file)
