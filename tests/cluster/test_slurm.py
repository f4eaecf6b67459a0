"""Jobs on a real Slurm of one node, or of two, started for these tests."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from cluster.book import JobBook
from cluster.probe import Needs
from cluster.slurm import SlurmSubmitter
from cluster.slurm_script import SlurmSettings
from cluster.spec import ClusterError, JobInfo, JobSpec, JobStatus, Resources
from evolve.journal import fold, read_journal

PATIENCE_S = 300.0


@pytest.fixture
def place(slurm: None, tmp_path: Path) -> Iterator[SlurmSubmitter]:
    here = SlurmSubmitter(tmp_path / "runs" / "jobs")
    yield here
    for job in here.list():
        here.stop(job.id, patience_s=0)


def wait_until(place: SlurmSubmitter, job_id: str, holds: Callable[[JobInfo], bool]) -> JobInfo:
    end = time.monotonic() + PATIENCE_S
    while not holds(info := place.status(job_id)):
        assert time.monotonic() < end, (info, "".join(place.logs(job_id)))
        time.sleep(0.2)
    return info


def has_ended(info: JobInfo) -> bool:
    return info.status not in ("queued", "running")


def test_a_job_runs_its_output_is_kept_and_its_exit_code_known(place: SlurmSubmitter, tmp_path: Path) -> None:
    good = place.submit(JobSpec(("--version",), tmp_path, "good"))
    bad = place.submit(JobSpec(("data", "check", "no where"), tmp_path, "bad"))
    assert "".join(place.logs(good, follow=True)).startswith("beagle ")
    assert (wait_until(place, good, has_ended).status, place.status(good).exit_code) == ("done", 0)
    ended = wait_until(place, bad, has_ended)
    assert (ended.status, ended.exit_code, ended.place) == ("failed", 1, "slurm")
    assert "no where" in "".join(place.logs(bad))
    assert [job.id for job in place.list()] == [good, bad]
    assert [job.id for job in JobBook(place.folder).list()] == [good, bad]


def test_variables_reach_the_job_and_stand_in_no_file(place: SlurmSubmitter, tmp_path: Path) -> None:
    secret = "a-secret-of-the-test"
    pipe = tmp_path / "data.yaml"
    os.mkfifo(pipe)
    job = place.submit(JobSpec(("data", "check", str(pipe)), tmp_path, "own", {"BEAGLE_TEST_SECRET": secret}))
    wait_until(place, job, lambda info: info.status == "running")
    with pipe.open("w"):  # opened once the job reads it
        pids = subprocess.run(
            ["pgrep", "-f", f"check {pipe}"], capture_output=True, text=True, check=True
        ).stdout
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in pids.split()]
    assert any(secret.encode() in environment for environment in environments)
    wait_until(place, job, has_ended)
    written = [path.read_text() for path in (place.folder / job).rglob("*") if path.is_file()]
    assert written
    assert not any(secret in text for text in written)


def test_a_waiting_job_says_why_and_can_be_stopped(place: SlurmSubmitter, tmp_path: Path) -> None:
    job = place.submit(JobSpec(("--version",), tmp_path, "much", resources=Resources(nodes=900, hours=0.5)))
    waiting = place.status(job)
    assert (waiting.status, waiting.exit_code) == ("queued", None)
    assert waiting.detail.startswith("Partition")
    assert place.stop(job).status == "stopped"


def test_what_slurm_refuses_leaves_no_job(place: SlurmSubmitter, tmp_path: Path) -> None:
    moon = SlurmSubmitter(place.folder, SlurmSettings(partition="moon"))
    with pytest.raises(ClusterError, match=r"can't be submitted: .*[Ii]nvalid partition"):
        moon.submit(JobSpec(("--version",), tmp_path, "away"))
    assert list(place.folder.iterdir()) == []


def test_a_job_that_fits_nowhere_is_told_before_it_is_sent(place: SlurmSubmitter, tmp_path: Path) -> None:
    fits = JobSpec(("--version",), tmp_path, resources=Resources(cpus=1))
    much = JobSpec(("--version",), tmp_path, resources=Resources(cpus=4000))
    assert place.check(fits, Needs()) == ()
    (told,) = place.check(much, Needs())
    assert "Slurm would not start it" in told
    (told,) = place.check(fits, Needs(paths=(str(tmp_path / "nowhere"),)))
    assert "nowhere can't be read" in told


def status_of(place: SlurmSubmitter, job: str) -> JobStatus:
    return place.status(job).status


def test_stopping_a_job_interrupts_its_command(place: SlurmSubmitter, tmp_path: Path) -> None:
    pipe = tmp_path / "data.yaml"
    os.mkfifo(pipe)
    job = place.submit(JobSpec(("data", "check", str(pipe)), tmp_path, "held"))
    wait_until(place, job, lambda info: info.status == "running")
    handle = os.open(pipe, os.O_RDWR)  # its reader goes on waiting
    time.sleep(3)
    stopped = place.stop(job, patience_s=30)
    os.close(handle)
    assert (stopped.status, stopped.exit_code) == ("stopped", 130)


def small_data(folder: Path) -> Path:
    """Eight images of a bright square each, four to train and four to validate with."""
    rng = np.random.default_rng(5)
    for split in ("train", "val"):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(4):
            pixels = np.zeros((64, 64, 3), np.uint8)
            left, top = (int(each) for each in rng.integers(0, 40, 2))
            pixels[top : top + 24, left : left + 24] = 255
            assert cv2.imwrite(str(images / f"{number}.png"), pixels)
            (labels / f"{number}.txt").write_text(f"0 {(left + 12) / 64} {(top + 12) / 64} 0.375 0.375\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [square]\n")
    return folder / "data.yaml"


@pytest.mark.slow
def test_an_evolution_whose_time_is_up_is_queued_again_and_loses_nothing(
    place: SlurmSubmitter, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "night"
    words = (
        *(
            "evolve",
            str(small_data(tmp_path)),
            "--model",
            "yolov5n",
            "--image-size",
            "64",
            "--batch-size",
            "4",
        ),
        *("--trials", "4", "--epochs", "12", "--device", "cpu"),
        *("--genes", "lr0,mosaic", "--concurrent", "1", "--out", str(run), "--resume"),
    )
    job = place.submit(JobSpec(words, tmp_path, "night", resources=Resources(cpus=os.cpu_count())))
    native = place.status(job).native_id

    def reports() -> int:
        path = run / "journal.jsonl"
        if not path.exists() or not path.stat().st_size:
            return 0
        state = fold(read_journal(path))
        return len(state.trials[1].reports) if 1 in state.trials else 0

    wait_until(place, job, lambda info: reports() >= 2 or has_ended(info))
    assert status_of(place, job) == "running", "".join(place.logs(job))
    # What Slurm itself sends `--signal=B:USR1@…` seconds before the time limit.
    subprocess.run(["scancel", "--batch", "--signal=USR1", native], check=True)
    assert wait_until(place, job, has_ended).status == "done", "".join(place.logs(job))
    assert "put into the queue again" in "".join(place.logs(job))
    events = read_journal(run / "journal.jsonl")
    assert sorted(event["trial"] for event in events if event["event"] == "tell") == [0, 1, 2, 3]
    assert sum(event["event"] == "resume" for event in events) == 1
    assert len(fold(events).finished) == 4
    record = json.loads((place.folder / job / "remote.json").read_text())
    assert record["words"] == list(words)
    assert sys.executable in (place.folder / job / "job.sh").read_text()


PROBE = """\
import json, os, pathlib, sys, time
out = pathlib.Path(sys.argv[1])
time.sleep(2)
out.mkdir(parents=True, exist_ok=True)
(out / "node").write_text(os.environ["SLURMD_NODENAME"])
(out / "metrics.jsonl").write_text(json.dumps({"map": float(sys.argv[2])}) + "\\n")
"""
TRAINER = """\
command: ["{python}", probe.py, "{out}", "{gene:x}"]
genes:
  x: {low: 0.0, high: 1.0, start: 0.5}
results: {format: jsonl, file: "{out}/metrics.jsonl", fitness: map}
"""


@pytest.mark.slow
def test_an_evolution_over_two_nodes_joins_them_and_uses_both(slurm_of_two: None, tmp_path: Path) -> None:
    place = SlurmSubmitter(tmp_path / "runs" / "jobs")
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "command.yaml").write_text(TRAINER)
    run = tmp_path / "runs" / "wide"
    words = ("evolve", "--trainer", "command.yaml", "--trials", "10", "--epochs", "1")
    words = (*words, "--out", str(run), "--resume")
    job = place.submit(JobSpec(words, tmp_path, "wide", resources=Resources(nodes=2, cpus=1)))
    ended = wait_until(place, job, has_ended)
    ray_log = (place.folder / job / "ray.log").read_text()
    assert ended.status == "done", ("".join(place.logs(job)), ray_log)
    assert len(fold(read_journal(run / "journal.jsonl")).finished) == 10
    nodes = [path.read_text() for path in run.rglob("node")]
    assert sorted(set(nodes)) == ["n1", "n2"]
    assert min(nodes.count("n1"), nodes.count("n2")) >= 3
