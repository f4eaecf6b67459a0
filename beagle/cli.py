"""The command `beagle`: its sub-commands, and the one place that catches what they raise."""

import errno
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from beagle import (
    __version__,
    anchors_command,
    cluster_command,
    confirm_command,
    console,
    convert_command,
    data_command,
    demo_command,
    doctor_command,
    evolve_command,
    export_command,
    jobs_command,
    model_command,
    predict_command,
    remote_command,
    report_command,
    resume_command,
    serve_command,
    status_command,
    stop_command,
    submit_command,
    sync_command,
    train_command,
    val_command,
    verify_command,
)

EXIT_USER, EXIT_OURS, EXIT_INTERRUPTED = 1, 3, 130
ROOMS = frozenset({"anchors", "beagle", "cluster", "dataset", "evolve", "model", "trainer"})


class Anywhere(TyperGroup):
    """The sub-commands of this machine or, behind `--server URL`, those that a service answers."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The sub-command of this name where the command is spoken to; None for none."""
        if ctx.params.get("server") is None:
            return super().get_command(ctx, cmd_name)
        there: TyperGroup = typer.main.get_group(remote_command.app)
        if cmd_name not in there.commands and cmd_name in self.commands:
            from beagle.folders import CommandError

            known = ", ".join(there.commands)
            raise CommandError(f"a service does not answer to `beagle {cmd_name}`, but to {known}")
        return there.commands.get(cmd_name)


app = typer.Typer(
    name="beagle",
    cls=Anywhere,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Evolve the hyperparameters of YOLO-family detectors, and fit their anchors to your data.",
)
app.add_typer(data_command.app, name="data", help="Look at a data set.")
app.add_typer(anchors_command.app, name="anchors", help="Check anchors, or fit them to a data set.")
app.add_typer(model_command.app, name="model", help="The detectors that are built in.")
model_command.app.command("convert")(convert_command.convert)
app.command("train")(train_command.train)
app.command("val")(val_command.val)
app.command("predict")(predict_command.predict)
app.command("evolve")(evolve_command.evolve)
app.command("resume")(resume_command.resume)
app.command("confirm")(confirm_command.confirm)
app.command("status")(status_command.status)
app.command("stop")(stop_command.stop)
app.command("report")(report_command.report)
app.command("export")(export_command.export)
app.command("verify")(verify_command.verify)
app.command("sync")(sync_command.sync)
app.command("submit", context_settings=submit_command.CONTEXT)(submit_command.submit)
app.add_typer(jobs_command.app, name="jobs", help="Jobs that were submitted.")
app.add_typer(cluster_command.app, name="cluster", help="Configurations of clusters.")
app.command("serve")(serve_command.serve)
app.command("demo")(demo_command.demo)
app.command("doctor")(doctor_command.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"beagle {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    no_tty: Annotated[
        bool, typer.Option("--no-tty", help="Lines for a log, no live table and no bars, on a terminal too.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            "--server", help="URL of a `beagle serve`: it runs the sub-command instead of this machine."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", help="File with the service's token; the variable BEAGLE_TOKEN by default."
        ),
    ] = None,
) -> None:
    if token_file is not None and server is None:
        raise typer.BadParameter("--token-file goes with --server", param_hint="--token-file")
    if server is not None:
        context.obj = remote_command.Server(server, token_file)
    if no_tty:
        console.as_in_a_log()
    console.log_to_stderr(verbose)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and leave with its exit code.

    Exit codes: 0 done, 1 the user can mend it (one line), 3 our fault (traceback in a file), 130 interrupted.

    Args:
        arguments: Words after `beagle`; those of the process by default.
    """
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """The same as `main`, but gives the exit code back."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        code = app(words or ["--help"], prog_name="beagle", standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # Typer turns Ctrl-C into this
            console.err.print("interrupted")
        return code if isinstance(code, int) else 0
    except typer.Exit as leave:
        return leave.exit_code
    except TyperException as error:
        console.fail(usage_line(error))
        return EXIT_USER
    except (KeyboardInterrupt, typer.Abort):
        console.err.print("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        line = user_line(error)
        if line is None:
            return _our_fault(error)
        logging.getLogger(__name__).info("where it was raised", exc_info=error)
        console.fail(line)
        return EXIT_USER


def usage_line(error: TyperException) -> str:
    """What is wrong with the words of the command line, and where help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "beagle"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{message.strip() or 'a sub-command is missing'} (see `{command} --help`)"


def user_line(error: BaseException) -> str | None:
    """The line for an error that the user can mend; None for a fault of ours.

    Each room has its own error class for what the user can mend, so the class's module tells.
    """
    room = type(error).__module__.partition(".")[0]
    if room in ROOMS:
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        where = f": {error.filename}" if error.filename else ""
        return f"{(error.strerror or 'can not write').lower()}{where} (free some space, or choose another folder)"
    return None


def _our_fault(error: Exception) -> int:
    text = "".join(traceback.format_exception(error))
    console.fail(f"this is a fault of Beagle's: {type(error).__name__}: {error}")
    try:
        folder = Path(os.environ.get("BEAGLE_CRASHES", tempfile.gettempdir()))
        path = folder / f"beagle-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        path.write_text(f"beagle {__version__}\n{sys.argv}\n\n{text}", encoding="utf-8")
        console.err.print(f"The traceback is in {path}; please report it.")
    except OSError:
        console.err.print(text, markup=False)
    return EXIT_OURS
