"""Trials that are a command: anyone's `train.py` as an objective of the search.

The command is followed while it runs: each epoch that it writes is reported, so that early stopping, the watchdog
and the charts see it as they see our own trainer. A retry goes on from its last checkpoint; an out-of-memory is
answered with half the batch.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evolve.aside import write_aside
from evolve.command_follow import Live, follow
from evolve.command_keeper import NOT_STARTED
from evolve.command_process import Command, Ending, Place, explain
from evolve.command_results import Best, Reader, Row, best_epoch
from evolve.command_spec import CommandSpec
from evolve.command_values import at_length, command_words, placeholder_values, write_hyp
from evolve.command_words import fields_of, fill
from evolve.space import EvolveError
from evolve.tracked_results import COMMAND_TAG, make_store
from evolve.trainable import Assignment, Outcome, Report, TrialError

logger = logging.getLogger(__name__)

OUTPUT, OUT, STATE = "output.txt", "training", "command.json"
TRAINER = "trainer"
"""Key of a run's settings that holds the spec of its command."""


class CommandTrialError(EvolveError):
    """A trial whose command can't run as its file says: no retry would mend it."""


@dataclass
class _Memory:
    """What one attempt tells the next, in the trial's folder."""

    batch: int
    halvings: int = 0
    attempts: int = 0
    seconds: float = 0.0
    done: bool = False
    resumed_at: int = -1
    failure: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, batch: int) -> "_Memory":
        if not path.is_file():
            return cls(batch)
        known = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{key: value for key, value in known.items() if key != "version"})

    def save(self, path: Path) -> None:
        write_aside(path, json.dumps({"version": 1, **asdict(self)}))


@dataclass(frozen=True)
class _Task:
    """One trial: its command's files and values."""

    assignment: Assignment
    spec: CommandSpec
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / OUT

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT

    def values(self, batch: int) -> dict[str, object]:
        given = self.assignment
        settings = {**given.settings, "gpus": given.gpus}
        values = placeholder_values(self.spec, settings, given.config, os.environ)
        values |= {
            "hyp": self.folder / (self.spec.handover.file or ""),
            "cpus": max(int(given.cpus), 1),
            "out": self.out,
            "folder": self.folder,
            "batch": batch,
            "trial": given.trial,
            "python": sys.executable,
        }
        return values | {"checkpoint": fill(self.spec.checkpoint, values)}

    def reader(self, batch: int) -> Reader:
        file = fill(self.spec.results.file, self.values(batch))
        if self.spec.results.format == "mlflow" and not file:
            file = f"sqlite:///{self.folder / 'mlflow.db'}"
        tag = hashlib.sha256(str(self.folder).encode()).hexdigest()[:24]
        return Reader(self.spec.results, file, self.output, tag)


def run_command(assignment: Assignment, report: Report) -> Outcome:
    """The objective of a run with a command as its trainer.

    Args:
        assignment: `settings` holds the spec's dict under "trainer".
        report: Called with each epoch that the command has written, soon after.

    Returns:
        The outcome: failed where the fitness is no number, where memory runs out even with half and quarter of the
        batch, or where two attempts end the same way at the same place.

    Raises:
        TrialError: The command ended badly; a new attempt may do better.
        CommandTrialError: It can't run as its file says.
    """
    spec = CommandSpec.from_dict(assignment.settings[TRAINER])
    length = assignment.settings.get("trial_epochs")
    if length:  # a training that confirms may be longer than the trials were
        config, _ = at_length(spec, assignment.config, int(length), int(assignment.settings["epochs"]))
        assignment = replace(assignment, config=config)
    task = _Task(assignment, spec, Path(assignment.folder))
    memory = _Memory.load(task.folder / STATE, int(assignment.settings["batch_size"]))
    _halve_for_dead_workers(task, memory)
    while not memory.done:
        began = time.monotonic()
        memory.attempts += 1
        try:
            ending = _attempt(task, memory, report)
        finally:
            memory.seconds += time.monotonic() - began
            memory.save(task.folder / STATE)
        if ending.well:
            memory.done = True
            memory.save(task.folder / STATE)
        else:
            outcome = _failed(task, memory, ending)
            if outcome is not None:
                return outcome
    return _outcome(task, memory)


def _attempt(task: _Task, memory: _Memory, report: Report) -> Ending:
    """One run of the command, from its last checkpoint where there is one."""
    values, reader = task.values(memory.batch), task.reader(memory.batch)
    resume = bool(task.spec.resume) and Path(str(values["checkpoint"])).is_file()
    if resume and _all_epochs(task, reader):
        return Ending(0, "")  # it was done, and the worker died before it could say so
    if not resume:
        _clear(task, reader)
    write_hyp(task.folder, task.spec, task.assignment.config)
    words = command_words(task.spec, values, task.assignment.config, resume=resume)
    directory = Path(fill(task.spec.working_directory, values))
    if not directory.is_dir():
        raise CommandTrialError(f"the working directory {directory} is not there")
    place = Place(
        task.folder, task.output, directory, _environment(task, values, reader), task.spec.limits.stop_s
    )
    seen = set(reader.epochs()) if resume else set()
    memory.resumed_at = len(seen) if resume else -1
    seen -= {max(seen, default=-1)}  # it may be written and yet unheard, should the worker have died then
    offset = task.output.stat().st_size if task.output.exists() else 0
    if reader.results.format == "mlflow":
        make_store(reader.file)
    logger.info("in %s: %s", directory, words)
    with Command(words, place) as command:
        code, why = follow(command, Live(reader, seen, report), task.output, task.spec.limits)
    return explain(code, why, task.output, offset)


def _failed(task: _Task, memory: _Memory, ending: Ending) -> Outcome | None:
    """The outcome of a bad end; None for one that is answered with a smaller batch."""
    if ending.disk_full:
        return Outcome(None, reason=ending.words, seconds=memory.seconds, halt=True)
    epochs = len(task.reader(memory.batch).epochs())
    failure = [ending.code, epochs]
    again = failure == memory.failure
    memory.failure = failure
    if ending.out_of_memory or (ending.killed and again):
        if _halve(task, memory, ending.words):
            return None
        return _gave_up(task, memory, f"out of memory with a batch of {memory.batch}: {ending.words}")
    if again or ending.code == NOT_STARTED:
        return _gave_up(task, memory, ending.words)
    if epochs <= memory.resumed_at and ending.code is not None and not ending.signalled:
        memory.notes.append("the last checkpoint could not be gone on from: begun anew")
        _forget_checkpoint(task, memory)
    memory.save(task.folder / STATE)
    raise TrialError(ending.words)


def _halve(task: _Task, memory: _Memory, why: str) -> bool:
    """Prepare a beginning anew with half the batch, where the command takes one and it was not halved too often."""
    takes_batch = "batch" in set().union(*(fields_of(word) for word in task.spec.command))
    if not takes_batch or memory.halvings >= task.spec.limits.halvings or memory.batch <= 1:
        return False
    memory.halvings += 1
    memory.batch //= 2
    memory.failure = []
    memory.notes.append(f"out of memory: begun anew with a batch of {memory.batch}")
    logger.warning("%s (%s)", memory.notes[-1], why)
    _forget_checkpoint(task, memory)
    memory.save(task.folder / STATE)
    return True


def _halve_for_dead_workers(task: _Task, memory: _Memory) -> None:
    """Halve the batch as often as the driver asks, who saw workers die of want of memory."""
    while memory.halvings < task.assignment.micro_batch_halvings:
        if not _halve(task, memory, "the worker died of it"):
            return


def _gave_up(task: _Task, memory: _Memory, words: str) -> Outcome:
    return Outcome(
        None, history=_history(task.reader(memory.batch).epochs()), reason=words, seconds=memory.seconds
    )


def _forget_checkpoint(task: _Task, memory: _Memory) -> None:
    """Programs keep the batch in their checkpoint: a smaller one begins anew."""
    if task.spec.checkpoint:
        Path(str(task.values(memory.batch)["checkpoint"])).unlink(missing_ok=True)


def _outcome(task: _Task, memory: _Memory) -> Outcome:
    reader = task.reader(memory.batch)
    reader.check_columns()
    epochs = reader.epochs()
    best: Best = best_epoch(epochs)
    run_folder = task.folder.parents[1]
    values = task.values(memory.batch)
    kept = [task.folder / (task.spec.handover.file or OUTPUT), task.output]
    kept += [Path(fill(template, values)) for template in (task.spec.results.file, *task.spec.artifacts)]
    return Outcome(
        fitness=best.fitness,
        metrics=epochs[best.epoch] if best.epoch is not None else {},
        history=_history(epochs),
        reason=best.reason,
        seconds=memory.seconds,
        result={
            **_weights(task, values),
            "best_epoch": best.epoch,
            "batch": memory.batch,
            "notes": memory.notes,
            "artifacts": list(
                dict.fromkeys(_relative(path, run_folder) for path in kept if _within(path, run_folder))
            ),
        },
    )


def _weights(task: _Task, values: Mapping[str, object]) -> dict[str, str]:
    """The best weights, in the run's folder: a command that keeps its own elsewhere has them copied."""
    if not task.spec.best:
        return {}
    path, run_folder = Path(fill(task.spec.best, values)), task.folder.parents[1]
    if not path.is_file():
        logger.warning("%s: there are no best weights", path)
        return {}
    if not _within(path, run_folder):
        path = Path(shutil.copyfile(path, task.folder / path.name))
    return {"best": _relative(path, run_folder)}


def _within(path: Path, folder: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _relative(path: Path, folder: Path) -> str:
    return str(path.resolve().relative_to(folder.resolve()))


def _history(epochs: Mapping[int, Row]) -> list[Row]:
    """Rows of all epochs; empty where some are missing, since the place in the list is the epoch."""
    return list(epochs.values()) if list(epochs) == list(range(len(epochs))) else []


def _all_epochs(task: _Task, reader: Reader) -> bool:
    best = task.spec.best
    there = not best or Path(fill(best, task.values(0))).is_file()
    return there and len(reader.epochs()) >= int(task.assignment.settings["epochs"])


def _clear(task: _Task, reader: Reader) -> None:
    """An attempt that leaves no checkpoint leaves nothing to go on from; its output is kept aside."""
    shutil.rmtree(task.out, ignore_errors=True)
    task.out.mkdir(parents=True)
    if reader.file and _within(Path(reader.file), task.folder):
        Path(reader.file).unlink()
    if task.output.exists():
        number = len(list(task.folder.glob("output-*.txt")))
        task.output.rename(task.folder / f"output-{number}.txt")


def _environment(task: _Task, values: Mapping[str, object], reader: Reader) -> dict[str, str]:
    own = {key: fill(template, values) for key, template in task.spec.environment.items()}
    environment = {"PYTHONUNBUFFERED": "1", **os.environ}
    if reader.results.format == "mlflow":
        # MLflow's client puts these tags on every run that the command begins.
        environment |= {
            "MLFLOW_TRACKING_URI": reader.file,
            "MLFLOW_RUN_CONTEXT": json.dumps({COMMAND_TAG: reader.tag}),
        }
    return {**environment, **own}
