"""What the HTTP service is told at its start, refused at birth where it can't be safe."""

import hashlib
import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from cluster.spec import ClusterError
from cluster.submit import PLACES

TOKEN_VARIABLE = "BEAGLE_TOKEN"  # noqa: S105  (the name of a variable)
LEAST_TOKEN = 16
MIB = 1 << 20


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path | None) -> str | None:
    """The token of a file, else of the variable BEAGLE_TOKEN; None without either.

    Raises:
        ClusterError: The file can't be read, others may read it, or the token is too short to be one.
    """
    if path is not None:
        try:
            if path.stat().st_mode & 0o077:
                raise ClusterError(f"{path}: others may read this token: chmod 600 {path}")
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ClusterError(f"{path}: the token can't be read ({error})") from error
    else:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable():
        raise ClusterError(
            f"the token must be {LEAST_TOKEN} or more printable ASCII characters: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one'
        )
    return token


@dataclass(frozen=True)
class ServiceSettings:
    """How the service runs.

    Attributes:
        runs: Absolute folder of the runs; jobs, fits and the audit log are kept under it.
        host: Address to listen at.
        port: Of it; 0 takes a free one.
        token: What every request must bring; None only on a loopback address.
        roots: Absolute folders under which data and models may lie.
        places: Where evolutions may be handed over to.
        fits_at_once: Anchor fits that run at the same time.
        fits_waiting: Anchor fits that may wait.
        fit_seconds: Longest fit.
        upload_bytes: Largest upload.
        expanded_bytes: Largest upload once it is unpacked.
        local_jobs: Evolutions that run at the same time on this machine.
        streams: Event streams at the same time.
        connections: Connections at the same time.
        header_seconds: In which a request's head must have come.
        body_seconds: In which its body must have come.
        send_seconds: In which a client must take a piece of an answer.
    """

    runs: Path
    host: str = "127.0.0.1"
    port: int = 8400
    token: str | None = field(default=None, repr=False)
    roots: tuple[Path, ...] = ()
    places: tuple[str, ...] = ("local",)
    fits_at_once: int = 2
    fits_waiting: int = 200
    fit_seconds: float = 300.0
    upload_bytes: int = 64 * MIB
    expanded_bytes: int = 512 * MIB
    local_jobs: int = 4
    streams: int = 100
    connections: int = 500
    header_seconds: float = 10.0
    body_seconds: float = 120.0
    send_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ClusterError(
                f"{self.host} is reached from other machines, so a token must be given: "
                f"--token-file FILE, or the variable {TOKEN_VARIABLE}"
            )
        if not 0 <= self.port < 65536:
            raise ClusterError(f"0 <= port < 65536 must hold, but got {self.port}")
        _check_folders(self.runs, self.roots)
        for place in self.places:
            if place not in PLACES:
                raise ClusterError(f"the place must be one of {', '.join(PLACES)}, but got {place!r}")
        for name in (
            "fits_at_once",
            "fits_waiting",
            "upload_bytes",
            "expanded_bytes",
            "streams",
            "connections",
        ):
            if getattr(self, name) < 1:
                raise ClusterError(f"{name} >= 1 must hold, but got {getattr(self, name)}")

    @property
    def fingerprint(self) -> str:
        """What stands for the token in logs: it can't be turned back."""
        return "-" if self.token is None else hashlib.sha256(self.token.encode()).hexdigest()[:8]

    def allowed(self, path: str) -> Path:
        """A path that a request names, links followed.

        Raises:
            ClusterError: It is not under an allowed folder; whether it exists is not said then.
        """
        if "://" in path:
            raise ClusterError("data must be a path on the service's machine, not an address")
        if "\0" in path:
            raise ClusterError("a path can't hold a NUL")
        try:
            found = Path(path).expanduser().resolve() if not path.startswith("~") else Path(path)
        except (OSError, RuntimeError) as error:
            raise ClusterError("the path can't be followed") from error
        if not any(found.is_relative_to(root.resolve()) for root in self.roots):
            allowed = (
                "one of the folders named by --allow"
                if self.roots
                else "a folder named by --allow: there is none"
            )
            raise ClusterError(f"the path must be absolute and under {allowed}")
        if not found.exists():
            raise ClusterError(f"{path} does not exist")
        return found


def _check_folders(runs: Path, roots: tuple[Path, ...]) -> None:
    for path in (runs, *roots):
        if not path.is_absolute():
            raise ClusterError(f"a folder of the service must be absolute, but got {path}")
    for root in roots:
        if not root.is_dir():
            raise ClusterError(f"{root} is no folder, so nothing can be allowed under it")
