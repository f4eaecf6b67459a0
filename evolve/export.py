"""The winner of a run as a folder that can be trained from, handed on, and traced back.

This room knows what every trainer shares: a configuration, weights, a command and where they came from. What only a
detector has (its model and data files) is given by the caller as texts.
"""

import hashlib
import json
import math
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from evolve.charts import drawable
from evolve.confirm import Measured
from evolve.journal import RunState, TrialState, fold, read_journal
from evolve.objectives import pick
from evolve.space import EvolveError, Space
from evolve.stored_trial import bring
from evolve.wording import belief_words, moment, origin_words

VERSION = 1
HYP, COMMAND, NOTES, PROVENANCE = "hyp.yaml", "train.sh", "notes.md", "provenance.json"
_OWN_NAMES = (HYP, COMMAND, NOTES, PROVENANCE)


def shell_variable(name: str) -> str:
    """What stands in a command's word for a variable of its script; no argument of a program holds it by chance."""
    return f"\0{name}\0"


HERE = shell_variable("here")
"""In a word of a command: the exported folder, wherever it is moved."""


class ExportError(EvolveError):
    """A winner that cannot be exported."""


@dataclass(frozen=True)
class ExportFiles:
    """What the caller adds to an export.

    Attributes:
        command: of the training, a list of arguments, for `train.sh`; without a `directory` it is run inside the
            exported folder, so files beside it are named without a folder. Empty: no `train.sh`.
        hyp: all hyperparameters by name, for `hyp.yaml`: the genes' best values and those that were not searched.
            None: the genes alone.
        texts: file name to content, such as `model.yaml`.
        copies: file name to the file that is copied. The best weights need not be named: they are copied under
            their own name.
        notes: what the user of the folder must know, a paragraph each, for `notes.md`.
        directory: where the command runs instead; it names files of the export by `HERE`.
        environment: variables of the command.
        variables: of the script, to be named by `shell_variable`: name to default; None for one that must be set.
        facts: what `provenance.json` says besides.
    """

    command: Sequence[str] = ()
    hyp: Mapping[str, float | int | str | bool | None] | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, Path] = field(default_factory=dict)
    notes: Sequence[str] = ()
    directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str | None] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names that would leave the folder or overwrite each other.

        Raises:
            ExportError: a name has a folder in it, is one of the export's own, or is given twice.
        """
        for name in (*self.texts, *self.copies):
            if not name or PurePosixPath(name).name != name or name == ".." or "\0" in name:
                raise ExportError(f"a file of an export must have a plain name, but got {name!r}")
            if name in _OWN_NAMES:
                raise ExportError(f"the export writes {name} itself, but it was given as well")
        both = sorted(set(self.texts) & set(self.copies))
        if both:
            raise ExportError(f"a file of an export must be a text or a copy, but {both[0]} is given as both")


def export_run(
    run_folder: Path,
    target: Path,
    *,
    build_files: Callable[[RunState, TrialState], ExportFiles] | None = None,
    weights: bool = True,
    choice: str | None = None,
) -> Path:
    """Write the best trial of a run into a new folder.

    The folder holds `hyp.yaml`, `train.sh`, the caller's files, the best weights and `provenance.json` with the
    SHA-256 of each of them. It is written under another name beside the target and renamed when it is whole, so
    there never is half an export.

    Args:
        run_folder: holds `journal.jsonl`; the run may still go on.
        target: folder to make; its parents are made too.
        build_files: called with the run's state and its best trial; None adds nothing.
        weights: copy the weights that the trial's result names as `best` (a trainer without weights names none).
        choice: which trial, as `evolve.objectives.pick` has it; None for the best by fitness.

    Returns:
        The target.

    Raises:
        JournalError: there is no journal, or it is damaged.
        ExportError: no trial has finished, the target exists, a file to copy is missing, or the disk refuses.
    """
    run_folder, target = Path(run_folder), Path(target)
    state = fold(read_journal(run_folder / "journal.jsonl"))
    best = state.best() if choice is None else pick(state, choice)
    if best is None:
        counts = f"{len(state.failed)} failed, {len(state.running)} running"
        raise ExportError(f"{run_folder}: a trial must have finished to be exported, but none has ({counts})")
    if os.path.lexists(target):
        raise ExportError(f"{target}: the target must not exist yet; remove it, or choose another")
    files = build_files(state, best) if build_files is not None else ExportFiles()
    copies = {**(_weights(run_folder, best, files) if weights else {}), **files.copies}
    for name, path in copies.items():
        if not path.is_file():
            raise ExportError(f"{path}: the file to export as {name} is missing")
    texts = {HYP: _hyp_text(state, best, files), **files.texts}
    if files.command:
        texts[COMMAND] = _command_text(state, best, files)
    notes = (belief_words(_measured(state, best)), *files.notes)
    lines = "".join(f"- {' '.join(note.split())}\n" for note in notes)
    texts[NOTES] = f"# {state.name}: what to know\n\n{lines}"
    aside = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(3)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        _fill(aside, texts, copies)
        _write(aside / PROVENANCE, _provenance_text(state, best, aside, {**files.facts, "picked": choice}))
        _sync_folder(aside)
        aside.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise ExportError(f"{target}: the export cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # it is gone where the rename went well
    return target


def _weights(run_folder: Path, best: TrialState, files: ExportFiles) -> dict[str, Path]:
    """The best weights under their own name; the journal's path must lie within the run's folder."""
    named = best.result.get("best")
    if named is None:
        return {}
    path = PurePosixPath(str(named))
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ExportError(
            f"trial {best.id}: its weights must lie in the run's folder, but got {str(named)!r}"
        )
    if path.name in files.texts or path.name in _OWN_NAMES:
        raise ExportError(f"trial {best.id}: its weights and another file are both called {path.name}")
    if not bring(run_folder, path).is_file():
        raise ExportError(
            f"{run_folder / path}: the best weights are missing; export without weights, or restore"
        )
    return {path.name: run_folder / path}


def _measured(state: RunState, best: TrialState) -> Measured:
    """What is known of the trial that is exported, which has finished: `export_run` has looked."""
    measured = state.measured(best)
    if measured is None:
        raise ExportError(f"{state.name}: no trial has finished")
    return measured


def _header(state: RunState, best: TrialState) -> str:
    lines = (
        f"Run {state.name}, trial {best.id} of {state.budget} ({origin_words(best.origin)}).",
        f"It had fitness {best.fitness} after {best.epochs} epochs, finished {moment(best.told_at)}.",
        belief_words(_measured(state, best)),
    )
    # Whatever a run is called, a comment stays a comment: no line breaks, nothing that YAML or a shell cannot hold.
    return "".join(f"# {''.join(c if c.isprintable() else ' ' for c in line)}\n" for line in lines)


def _hyp_text(state: RunState, best: TrialState, files: ExportFiles) -> str:
    """The hyperparameters as YAML: genes in the order of the space, then the others in the order given."""
    genes = Space.from_dict(state.header["space"]).names
    values = dict(best.config if files.hyp is None else files.hyp)
    ordered = {name: values[name] for name in (*genes, *values) if name in values}
    try:
        return _header(state, best) + yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise ExportError(f"{HYP}: values must be plain numbers or words, but got {ordered}") from error


def _command_text(state: RunState, best: TrialState, files: ExportFiles) -> str:
    lines = [
        "#!/bin/sh",
        _header(state, best) + "set -eu",
        'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)',
    ]
    for name, default in files.variables.items():
        if default is None:
            lines.append(f': "${{{name}:?must be set, see {NOTES}}}"')
        else:
            lines.append(f'test -n "${{{name}:-}}" || {name}={shlex.quote(default)}')
    lines.append(f"cd -- {_quoted(files.directory or HERE)}")
    lines += [f"export {name}={_quoted(value)}" for name, value in files.environment.items()]
    return "\n".join(lines) + f'\nexec {" ".join(_quoted(word) for word in files.command)} "$@"\n'


def _quoted(word: str) -> str:
    """A word for the shell; what stands for a variable becomes its value when the script is run."""
    pieces = word.split("\0")
    parts = [f'"${piece}"' if index % 2 else shlex.quote(piece) for index, piece in enumerate(pieces)]
    return "".join(part for part in parts if part != "''") or "''"


def _fill(folder: Path, texts: Mapping[str, str], copies: Mapping[str, Path]) -> None:
    for name, text in texts.items():
        _write(folder / name, text)
    for name, path in copies.items():
        shutil.copyfile(path, folder / name)
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    if COMMAND in texts:
        (folder / COMMAND).chmod((folder / COMMAND).stat().st_mode | 0o111)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make names durable: fsync of the files alone does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _provenance_text(state: RunState, best: TrialState, folder: Path, more: Mapping[str, Any]) -> str:
    header = state.header
    start = next((t for t in state.finished if t.origin.get("kind") == "start"), None)
    facts = {
        "version": VERSION,
        **more,
        "run": state.name,
        "trial": best.id,
        "origin": best.origin,
        "fitness": best.fitness,
        "measured": _measured(state, best).to_dict(),
        "start_fitness": start.fitness if start is not None else None,
        "metrics": best.metrics,
        "seed": header.get("seed"),
        "trials": {
            "budget": state.budget,
            "finished": len(state.finished),
            "failed": len(state.failed),
            "stopped": len(state.cut),
            "running": len(state.running),
            "epochs": sum(trial.epochs for trial in state.trials.values()),
        },
        "ladder": header.get("ladder"),
        "finished_at": _iso(best.told_at),
        "exported_at": _iso(time.time()),
        "provenance": header.get("provenance", {}),
        "settings": header.get("settings", {}),
        "search": header.get("search", {}),
        "notes": best.result.get("notes", []),
        "files": dict(_digests(folder)),
    }
    return json.dumps(_finite(facts), indent=2, allow_nan=False) + "\n"


def _iso(seconds: object) -> str | None:
    number = drawable(seconds)
    return None if number is None else datetime.fromtimestamp(number, UTC).isoformat(timespec="seconds")


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of each file, by name; `provenance.json` cannot hold its own."""
    for path in sorted(folder.iterdir()):
        if path.name != PROVENANCE:
            with path.open("rb") as file:
                yield path.name, hashlib.file_digest(file, "sha256").hexdigest()


def _finite(value: Any) -> Any:
    """The same plain data with None for NaN and infinities, which JSON has no words for."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
