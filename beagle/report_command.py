"""`beagle report`: one page that shows a run."""

from pathlib import Path
from typing import Annotated

import typer

from beagle import console
from beagle.status_command import Run


def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", help="Page to write; report.html of the run by default.")
    ] = None,
) -> None:
    """Write the report of a run, also while it goes on: one HTML page that opens from disk."""
    from beagle.folders import find_run
    from evolve.report import write_report

    path = write_report(find_run(run), out)
    console.out.print(str(path))
