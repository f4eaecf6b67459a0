"""What the service says of runs: folded from their journals, each of which is read on only from where it was left.

The journals and the records of the jobs are the only state. What is kept here can be made again from them, so a
service that is killed loses nothing, and two may look at the same folder.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from cluster.service_answers import (
    anchors_of,
    broken_summary,
    finite_metrics,
    fitness_of_start,
    gene_info,
    only_summary,
    state_of,
    trial_info,
    winner_of,
)
from cluster.service_models import (
    Best,
    CurvePoint,
    Evolution,
    Evolutions,
    Summary,
    TrialDetail,
)
from cluster.service_run_jobs import RunJobs
from cluster.spec import ClusterError, JobInfo
from evolve.control import driver_of
from evolve.journal import JournalReader, RunState
from evolve.run_state import JournalError

JOURNAL = "journal.jsonl"
_LIST_SECONDS = 1.0
_LOOK_BYTES = 1 << 18


class NoSuchRunError(ClusterError):
    """There is no run of this id, or no such trial in it."""


@dataclass
class _Run:
    """A run's journal as far as it was read, and answers made from it.

    Attributes:
        folder: Of the run.
        reader: Of its journal.
        lock: Held while it is read or looked at: the fold changes in place.
        size: Bytes of the journal that the answers know.
        driver: Who drove it when they were made.
        job: How its job stood then.
        answers: JSON by kind, of this size, driver and job.
    """

    folder: Path
    reader: JournalReader
    lock: threading.Lock = field(default_factory=threading.Lock)
    size: int = -1
    driver: str | None = None
    job: JobInfo | None = None
    answers: dict[str, bytes] = field(default_factory=dict)


class Runs:
    """All runs of a folder. Safe for many threads."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self.folder = folder
        self.jobs = RunJobs(folder)
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()  # of the table of runs
        self._listing = threading.Lock()
        self._listed: tuple[float, bytes] = (-math.inf, b"")

    def listed(self) -> bytes:
        """JSON of `Evolutions`; made anew at most once a second."""
        made, text = self._listed
        if time.monotonic() - made > _LIST_SECONDS:
            with self._listing:
                made, text = self._listed
                if time.monotonic() - made > _LIST_SECONDS:
                    text = Evolutions(evolutions=self._summaries()).model_dump_json().encode()
                    self._listed = (time.monotonic(), text)
        return text

    def evolution(self, run_id: str) -> bytes:
        """JSON of `Evolution`.

        Raises:
            NoSuchRunError: There is none.
            JournalError: Its journal is damaged.
        """
        if not self._begun(run_id):
            return self._not_begun(run_id).model_dump_json().encode()
        return self._answer(run_id, "evolution", self._detail)

    def summary(self, run_id: str) -> bytes:
        """JSON of `Summary`. Raises as `evolution`."""
        if not self._begun(run_id):
            return only_summary(self._not_begun(run_id)).model_dump_json().encode()
        return self._answer(run_id, "summary", self._summary)

    def trial(self, run_id: str, number: int) -> bytes:
        """JSON of `TrialDetail`. Raises as `evolution`, and NoSuchRunError when it has no such trial."""

        def make(run: _Run, state: RunState) -> TrialDetail:
            trial = state.trials.get(number)
            if trial is None:
                raise NoSuchRunError(f"{run_id} has no trial {number}")
            curve = [
                CurvePoint(epoch=epoch, metrics=finite_metrics(row))
                for epoch, row in sorted(trial.reports.items())
            ]
            return TrialDetail(**trial_info(trial).model_dump(), curve=curve)

        if not self._begun(run_id):
            self._not_begun(run_id)
            raise NoSuchRunError(f"{run_id} has no trial {number} yet")
        return self._answer(run_id, f"trial {number}", make)

    def news(self, run_id: str, offset: int) -> tuple[list[tuple[str, str]], int]:
        """What the journal says from a byte on, as events of the stream: (kind, JSON), and the byte after them.

        Args:
            run_id: The run's.
            offset: Where a line begins; elsewhere, or beyond the end, what is new begins at the end.

        Raises:
            NoSuchRunError, JournalError: As `evolution`.
        """
        run = self._run(run_id)
        with run.lock:
            state = run.reader.state()
            end = run.reader.offset
            lines, offset = _lines_from(run.folder / JOURNAL, offset, end)
            return [event for line in lines if (event := _news(line, state)) is not None], offset

    def folder_of(self, run_id: str) -> Path:
        """A run's folder, once it has begun.

        Raises:
            NoSuchRunError: There is none, or it has not begun.
        """
        if not self._begun(run_id):
            self._not_begun(run_id)
            raise NoSuchRunError(f"{run_id} has not begun yet")
        return self.folder / run_id

    def is_taken(self, run_id: str) -> bool:
        """Whether a folder or a job of this name exists."""
        return (self.folder / run_id).exists() or run_id in self.jobs.newest(fresh=True)

    def _begun(self, run_id: str) -> bool:
        # One name, looked up in one folder: no path can be climbed.
        inside = run_id not in ("", ".", "..") and "/" not in run_id and "\0" not in run_id
        if not inside or len(run_id.encode(errors="replace")) > 255:
            raise NoSuchRunError("there is no such evolution")
        return (self.folder / run_id / JOURNAL).is_file()

    def _run(self, run_id: str) -> _Run:
        with self._lock:
            if run_id not in self._runs:
                folder = self.folder / run_id
                self._runs[run_id] = _Run(folder, JournalReader(folder / JOURNAL))
            return self._runs[run_id]

    def _answer(self, run_id: str, kind: str, make: Callable[[_Run, RunState], BaseModel]) -> bytes:
        return self._answer_of(self._run(run_id), kind, make)

    def _answer_of(self, run: _Run, kind: str, make: Callable[[_Run, RunState], BaseModel]) -> bytes:
        with run.lock:
            size = (run.folder / JOURNAL).stat().st_size
            driver, job = driver_of(run.folder), self.jobs.newest().get(run.folder.name)
            if (size, driver, job) != (run.size, run.driver, run.job):
                if size < run.size:  # another run took its name
                    run.reader = JournalReader(run.folder / JOURNAL)
                run.size, run.driver, run.job = size, driver, job
                run.answers.clear()
            if kind not in run.answers:
                run.answers[kind] = make(run, run.reader.state()).model_dump_json().encode()
            return run.answers[kind]

    def _summaries(self) -> list[Summary]:
        found, jobs = [], self.jobs.newest()
        begun = [path.parent.name for path in self.folder.glob(f"*/{JOURNAL}")]
        for run_id in begun:
            try:
                found.append(Summary.model_validate_json(self._answer(run_id, "summary", self._summary)))
            except (JournalError, OSError) as error:
                found.append(broken_summary(run_id, " ".join(str(error).split())))
        found += [only_summary(self._not_begun(run_id)) for run_id in jobs if run_id not in begun]
        return sorted(found, key=lambda each: (-each.created, each.id))

    def _summary(self, run: _Run, state: RunState) -> Summary:
        job = run.job
        settings = state.header.get("settings") or {}
        best, measured = state.best(), state.measured()
        how, reason = state_of(state, run.driver, job)
        return Summary(
            id=run.folder.name,
            name=state.name,
            state=how,
            reason=reason,
            data=str(settings.get("data", "")),
            model=str(settings.get("model", settings.get("trainer", ""))),
            created=float(state.header.get("time", 0.0)),
            updated=state.updated_at,
            planned=state.budget,
            asked=len(state.trials),
            finished=len(state.finished) + sum(trial.fitness is not None for trial in state.confirming),
            failed=len(state.failed),
            cut=len(state.cut),
            running=len(state.running),
            epochs=int(settings.get("epochs") or 0),
            best=Best(trial=best.id, fitness=measured.standing.mean) if best and measured else None,
            start_fitness=fitness_of_start(state),
            job=None if job is None else job.id,
        )

    def _detail(self, run: _Run, state: RunState) -> Evolution:
        return Evolution(
            **self._summary(run, state).model_dump(),
            genes=[gene_info(each) for each in state.header.get("space", {}).get("genes", [])],
            trials=[trial_info(each) for each in state.trials.values()],
            winner=winner_of(state),
            anchors=anchors_of(state),
            offset=run.reader.offset,
        )

    def _not_begun(self, run_id: str) -> Evolution:
        """What is known of a run from its job alone."""
        waiting = self.jobs.waiting(run_id)
        if waiting is None:
            raise NoSuchRunError(f"there is no evolution {run_id!r}")
        return waiting


def _lines_from(path: Path, offset: int, end: int) -> tuple[list[bytes], int]:
    """Whole lines from `offset`, as many as one look takes, and the byte after them."""
    if not 0 <= offset <= end:
        return [], end
    with path.open("rb") as file:
        file.seek(max(offset - 1, 0))
        if offset and file.read(1) != b"\n":
            return [], end
        text = file.read(min(end - offset, _LOOK_BYTES))
        if b"\n" not in text and len(text) == _LOOK_BYTES:
            text += file.readline()
    whole = text[: text.rfind(b"\n") + 1]
    return whole.splitlines(), offset + len(whole)


def _news(line: bytes, state: RunState) -> tuple[str, str] | None:
    """One line of the journal as an event of the stream; None for what nobody watches."""
    event = json.loads(line)
    kind = event["event"]
    if kind == "report":
        metrics = finite_metrics(event["metrics"])
        told = {"trial": event["trial"], "epoch": event["epoch"], "metrics": metrics}
        return "epoch", json.dumps(told, allow_nan=False)
    if kind in ("ask", "retry", "tell"):
        return "trial", trial_info(state.trials[event["trial"]]).model_dump_json()
    return None
