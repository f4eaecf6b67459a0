"""`beagle serve`: evolutions and anchor fits over HTTP, and a web page."""

import os
from pathlib import Path
from typing import Annotated

import typer

from beagle import console


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8400,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the runs.")] = Path("runs"),
    allow: Annotated[
        list[Path] | None,
        typer.Option("--allow", help="Folder under which data and models may lie; may be repeated."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the token that clients must bring; or BEAGLE_TOKEN."),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", help="Where evolutions may be handed over to: local, slurm, ray, kubernetes."),
    ] = None,
    fits: Annotated[int, typer.Option("--fits", help="Anchor fits at the same time.")] = 2,
    upload_mb: Annotated[int, typer.Option("--upload-mb", help="Largest upload.")] = 64,
) -> None:
    """Serve evolutions and anchor fits over HTTP, with a web page at /.

    A token is needed unless it listens at a loopback address. It holds no state of its own: it may be killed, and
    started again anywhere that sees the runs.
    """
    from beagle.job_words import needs_of
    from beagle.production import Wanted, export_best
    from cluster.service import Actions, build_app
    from cluster.service_server import serve as serve_app
    from cluster.service_settings import MIB, TOKEN_VARIABLE, ServiceSettings, read_token

    def export(folder: Path, target: Path, wanted: str | None) -> None:
        export_best(folder, target, Wanted(wanted))

    settings = ServiceSettings(
        runs=runs.resolve(),
        host=host,
        port=port,
        token=read_token(token_file),
        roots=tuple(path.resolve() for path in allow or ()),
        places=tuple(to or ("local",)),
        fits_at_once=fits,
        upload_bytes=upload_mb * MIB,
    )
    os.environ.pop(TOKEN_VARIABLE, None)  # the jobs and fits that it starts have no use for it
    app = build_app(settings, Actions(export, needs_of))
    serve_app(app, settings, lambda url: console.done(f"serving {settings.runs} at {url} (Ctrl-C ends it)"))
