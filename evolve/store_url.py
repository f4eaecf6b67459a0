"""Where a run is kept, as a user writes it: a URL of an object store, and never any credentials."""

import re
from dataclasses import dataclass
from pathlib import Path

from evolve.space import EvolveError

# Protocols whose library can put an object only where there is none, with what they raise beside OSError.
PROTOCOLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "s3": ("s3fs", ("botocore.exceptions.BotoCoreError", "aiohttp.ClientError")),
    "gs": ("gcsfs", ("google.auth.exceptions.GoogleAuthError", "aiohttp.ClientError")),
    "abfs": ("adlfs", ("azure.core.exceptions.AzureError",)),
    "file": ("fsspec", ()),
    "memory": ("fsspec", ()),
}
ALIASES = {"s3a": "s3", "gcs": "gs", "az": "abfs", "local": "file"}
URL = re.compile(r"([a-z][a-z0-9+.]+):/+(.*)", re.DOTALL)


class StoreError(EvolveError):
    """An object store that can't be used, reached or believed."""


@dataclass(frozen=True)
class StoreUrl:
    """Where a run is kept: `protocol://root`, without a slash at its end.

    Attributes:
        protocol: One of `PROTOCOLS`.
        root: Bucket and key, or an absolute path.
    """

    protocol: str
    root: str

    @classmethod
    def parse(cls, text: str | Path) -> "StoreUrl | None":
        """The URL that a text is; None for a path. One slash after the colon is enough: a `Path` keeps no second.

        Raises:
            StoreError: No such protocol is known, the bucket is missing, or credentials stand in it.
        """
        found = URL.fullmatch(str(text))
        if found is None:
            return None
        protocol = ALIASES.get(found[1], found[1])
        if protocol not in PROTOCOLS:
            raise StoreError(
                f"a run can be kept on {', '.join(PROTOCOLS)} or in a folder, but got {found[1]}://"
            )
        parts = [part for part in found[2].split("/") if part]
        if parts and "@" in parts[0]:
            raise StoreError(
                f"credentials must come by the environment, never by the URL: {protocol}://…@{parts[0].split('@')[-1]}"
            )
        if not parts or ".." in parts or any(mark in found[2] for mark in "?#\n"):
            raise StoreError(f"a store must be PROTOCOL://BUCKET/FOLDER, but got {str(text)!r}")
        return cls(protocol, ("/" if protocol == "file" else "") + "/".join(parts))

    @property
    def name(self) -> str:
        """Its last part: the name of the run."""
        return self.root.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return f"{self.protocol}://{self.root}"

    def __truediv__(self, name: str) -> "StoreUrl":
        return StoreUrl(self.protocol, f"{self.root}/{name}")
