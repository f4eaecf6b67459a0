"""How the command speaks: results on stdout, everything else on stderr, JSON for machines."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Advance = Callable[[str, int, int], None]


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout; numbers sit on the right.

    Args:
        title: Its heading.
        columns: Headings of the columns.
        rows: Cells; floats are shown with four significant digits.
    """
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell_text(cell)) for cell in row))
    out.print(table)


def cell_text(value: Any) -> str:
    """A table cell as text: floats shortened, None as a dash."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_json(value: Any) -> None:
    """Print plain data as JSON on stdout; paths become text."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def note(text: str) -> None:
    """Print a remark on stderr."""
    err.print(f"[dim]·[/dim] {escape(text)}")


def done(text: str) -> None:
    """Print what was accomplished, on stderr."""
    err.print(f"[green]✓[/green] {escape(text)}")


def fail(text: str) -> None:
    """Print the one line of an error, on stderr."""
    err.print(f"[bold red]error:[/bold red] {escape(text)}")


def as_in_a_log() -> None:
    """From now on write as if stderr and stdout were files: plain lines that stay."""
    os.environ["TTY_COMPATIBLE"] = "0"  # which rich asks for each time


def log_to_stderr(verbose: bool) -> None:
    """Show warnings of the rooms (with `verbose` all they log) on stderr."""
    handler = RichHandler(console=err, show_path=False, show_time=False, markup=False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(message)s", handlers=[handler]
    )


@contextmanager
def bars() -> Iterator[Advance]:
    """Progress bars for long work, one per kind of work; quiet where stderr is no terminal.

    Yields:
        A function (what, done, total) that moves the bar called `what`.
    """
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(what: str, count: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, detail="")
            progress.update(tasks[what], completed=count, total=total)

        yield advance
