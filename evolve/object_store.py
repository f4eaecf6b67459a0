"""The door to object stores: a run's folder on S3, Google's or Azure's storage, or on a file system without locks.

A store has no append, no rename and no lock. What it has is enough: an object appears whole or not at all, is seen by
everyone as soon as it was put, and can be put *only where there is none of that name*. Libraries of the protocols
(s3fs, gcsfs, adlfs) are found by fsspec, as Ray finds them; credentials are theirs to find in the environment.
"""

import errno
import importlib
import logging
import os
import random
import secrets
import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from evolve.store_url import PROTOCOLS, StoreError, StoreUrl

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# A driver or worker tries for so long before it gives up: stores are away for minutes now and then.
PATIENCE_S = 600.0
LONGEST_PAUSE_S = 10.0
FINAL = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


class ObjectStore:
    """The objects below one URL, by their names relative to it.

    Each call is tried again until `patience_s` are over; what no new try can mend (a bucket that is not there,
    credentials that are not accepted) is raised at once.
    """

    def __init__(self, url: StoreUrl, patience_s: float = PATIENCE_S) -> None:
        """Nothing is asked of the store yet."""
        self.url = url
        self.patience_s = patience_s

    @cached_property
    def _fs(self) -> Any:
        library, _ = PROTOCOLS[self.url.protocol]
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise StoreError(
                f"{self.url.protocol}:// needs the package {library}: pip install {library} where the driver and the "
                "workers run"
            ) from error
        # What others write must be seen at once.
        return fsspec.filesystem(self.url.protocol, use_listings_cache=False)

    @cached_property
    def _faults(self) -> tuple[type[BaseException], ...]:
        return (OSError, *filter(None, map(_known_class, PROTOCOLS[self.url.protocol][1])))

    def path(self, name: str) -> str:
        """An object's name as fsspec wants it."""
        return f"{self.url.root}/{name}" if name else self.url.root

    def create(self, name: str, content: bytes) -> bool:
        """Put an object where there is none of its name.

        An answer may be lost on its way, and the second try then finds the first one's object: so the object that is
        there is compared, and `content` must be such that nobody else would write the same.

        Returns:
            Whether the object is ours; False leaves what was there.
        """

        def put() -> bool:
            try:
                self._put_new(self.path(name), content)
            except FileExistsError:
                return bool(self._fs.cat_file(self.path(name)) == content)
            except OSError as error:
                if "PreconditionFailed" not in str(error):
                    raise
                return bool(self._fs.cat_file(self.path(name)) == content)
            return True

        return self._try(f"put {name}", put)

    def _put_new(self, path: str, content: bytes) -> None:
        if self.url.protocol == "file":
            _link_new(Path(path), content)
        else:
            self._fs.pipe_file(path, content, mode="create")

    def put(self, name: str, content: bytes) -> None:
        """Put an object, whether there was one or not."""

        def put() -> None:
            if self.url.protocol == "file":
                _replace(Path(self.path(name)), content)
            else:
                self._fs.pipe_file(self.path(name), content)

        self._try(f"put {name}", put)

    def upload(self, path: Path, name: str) -> None:
        """Put a file; a large one goes in parts, and is there only when all are."""
        self._make_parent(name)
        self._try(f"put {name}", lambda: self._fs.put_file(str(path), self.path(name)))

    def _make_parent(self, name: str) -> None:
        if self.url.protocol == "file":
            Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""

        def get() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(self.path(name)))
            except FileNotFoundError:
                return None

        return self._try(f"read {name}", get)

    def get_all(self, names: Iterable[str]) -> list[bytes | None]:
        """Contents of several objects, many at a time; None where there is none."""
        paths = [self.path(name) for name in names]

        def get() -> list[bytes | None]:
            found = self._fs.cat(paths, on_error="return") if paths else {}
            contents = [found.get(self._fs._strip_protocol(path)) for path in paths]
            for content in contents:
                if isinstance(content, BaseException) and not isinstance(content, FileNotFoundError):
                    raise content
            return [content if isinstance(content, bytes) else None for content in contents]

        return self._try("read several objects", get)

    def download(self, name: str, path: Path) -> None:
        """Fetch an object into a file, whole or not at all.

        Raises:
            FileNotFoundError: There is no such object.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._try(f"read {name}", lambda: self._fs.get_file(self.path(name), str(aside)), missing=True)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def names(self, folder: str = "") -> list[str]:
        """Names of all objects below a folder, sorted; relative to the store, not to the folder."""
        start = len(self._fs._strip_protocol(self.path(""))) + 1

        def find() -> list[str]:
            return sorted(path[start:] for path in self._fs.find(self.path(folder)))

        return [name for name in self._try(f"list {folder}", find) if "/." not in f"/{name}"]

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that is not there is as good as deleted."""
        for name in names:
            self._try(f"delete {name}", partial(self._delete, name))

    def _delete(self, name: str) -> None:
        try:
            self._fs.rm_file(self.path(name))
        except FileNotFoundError:
            return

    def check(self) -> None:
        """See whether objects can be put, read and deleted here, and whether a second of one name is refused.

        Raises:
            StoreError: Which of it fails, and what to do.
        """
        name = f"check-{secrets.token_hex(8)}"
        first, second = b"first " + name.encode(), b"second " + name.encode()
        try:
            if not self.create(name, first) or self.get(name) != first:
                raise StoreError(f"{self.url}: what was put there can't be read again")
            if self.create(name, second):
                raise StoreError(
                    f"{self.url}: this store puts an object over another although it was told not to "
                    "(If-None-Match), so two drivers could not be kept apart: use another store, or a shared folder"
                )
        finally:
            self.delete([name])

    def _try(self, what: str, call: Callable[[], Answer], *, missing: bool = False) -> Answer:
        end = time.monotonic() + self.patience_s
        pause = 0.2
        while True:
            try:
                return call()
            except self._faults as error:
                if missing and isinstance(error, FileNotFoundError):
                    raise
                if _is_final(error) or time.monotonic() + pause > end:
                    raise StoreError(f"{self.url}: can't {what} ({_told(error)})") from error
                logger.info("%s: can't %s yet (%s)", self.url, what, _told(error))
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _known_class(path: str) -> type[BaseException] | None:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) else None


def _is_final(error: BaseException) -> bool:
    """Whether another try can't help: no such bucket, no rights, no credentials, no room."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return (
        isinstance(error, FINAL)
        or bool(
            names
            & {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}
        )
        or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    )


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, PermissionError) or "redentials" in type(error).__name__:
        return f"{text}: are the store's credentials set in the environment, and do they allow it?"
    if isinstance(error, FileNotFoundError):
        return f"{text}: is there such a bucket?"
    return text


def _link_new(path: Path, content: bytes) -> None:
    """Put a file in place whole, and only where there is none: a link is made or refused at once, on NFS too."""
    aside = _aside(path, content)
    try:
        os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    aside = _aside(path, content)
    aside.replace(path)


def _aside(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return aside
