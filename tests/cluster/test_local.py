"""Jobs on this machine, with real processes."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.local import LocalSubmitter
from cluster.record import Process
from cluster.spec import ClusterError, JobInfo, JobSpec
from cluster.submit import Submitter, build_submitter

Wait = Callable[[str], JobInfo]
SLEEP = ["/bin/sleep", "60"]


def edit_record(place: LocalSubmitter, job_id: str, **changes: Any) -> None:
    path = place.folder / job_id / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def keeper_of(place: LocalSubmitter, job_id: str) -> int:
    return int(json.loads((place.folder / job_id / "job.json").read_text())["keeper"]["pid"])


def gone(pid: int) -> bool:
    """Whether it ends within some seconds; a zombie that nobody waits for has ended."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_job_that_ends_well_is_done_and_its_output_is_kept(
    place: LocalSubmitter, tmp_path: Path, until_ended: Wait
) -> None:
    before = time.time()
    job_id = place.submit(JobSpec(("--version",), tmp_path))
    job = until_ended(job_id)
    assert (job.id, job.status, job.exit_code, job.words) == ("version", "done", 0, ("--version",))
    assert job.folder == tmp_path
    assert job.ended_at is not None
    assert before - 1 <= job.started_at <= job.ended_at <= time.time() + 1
    assert re.fullmatch(r"beagle \S+\n", "".join(place.logs(job_id)))


def test_a_job_that_fails_tells_its_exit_code_and_why(
    place: LocalSubmitter, tmp_path: Path, until_ended: Wait
) -> None:
    job_id = place.submit(JobSpec(("data", "check", "nowhere"), tmp_path))
    job = until_ended(job_id)
    assert (job.status, job.exit_code) == ("failed", 1)
    assert str(tmp_path / "nowhere") in "".join(
        place.logs(job_id)
    )  # from its working folder, stderr included


def test_a_file_of_the_working_folder_is_not_taken_for_a_room(
    place: LocalSubmitter, tmp_path: Path, until_ended: Wait
) -> None:
    (tmp_path / "beagle.py").write_text("raise SystemExit(9)")
    (tmp_path / "cluster.py").write_text("raise SystemExit(9)")
    assert until_ended(place.submit(JobSpec(("--version",), tmp_path))).exit_code == 0


def test_a_taken_name_gets_a_number_and_jobs_are_listed_oldest_first(
    place: LocalSubmitter, tmp_path: Path, until_ended: Wait
) -> None:
    assert place.list() == ()
    ids = [place.submit(JobSpec(("--version",), tmp_path, name)) for name in ("b", "a", "b")]
    assert ids == ["b", "a", "b-2"]
    assert [job.id for job in place.list()] == ids
    for job_id in ids:
        until_ended(job_id)


def test_a_job_goes_on_when_the_process_that_submitted_it_is_killed(
    place: LocalSubmitter, tmp_path: Path, until_ended: Wait
) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from cluster.local import LocalSubmitter; from cluster.spec import JobSpec\n"
        "spec = JobSpec(('data', 'check', 'pipe.yaml'), Path.cwd(), 'kept')\n"
        "print(LocalSubmitter(Path(sys.argv[1])).submit(spec))\n"
        "sys.stdout.flush(); os.killpg(0, signal.SIGKILL)"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, str(place.folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "kept\n")
    job = place.status("kept")
    assert job.status == "running"
    assert job.pid is not None
    assert os.getsid(job.pid) == job.pid  # a session of its own: a terminal that closes does not reach it
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        os.kill(keeper_of(place, "kept"), number)  # it outlives them too
    with (tmp_path / "pipe.yaml").open("w") as pipe:  # waits for the job to read
        pipe.write("names: 7\n")
    assert until_ended("kept").exit_code == 1


def test_stop_interrupts_gently_even_where_the_submitter_ignores_interrupts(
    place: LocalSubmitter, hold: Callable[..., Any]
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in what a shell runs in the background
    try:
        job_id = hold().id
    finally:
        signal.signal(signal.SIGINT, before)
    job = place.stop(job_id, patience_s=20)
    assert (job.status, job.exit_code) == ("stopped", 130)


def test_a_job_that_ignores_interrupts_is_terminated(
    place: LocalSubmitter, hold: Callable[..., Any], in_every_job: Callable[[str], dict[str, str]]
) -> None:
    environment = in_every_job("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    job = place.stop(hold(environment).id, patience_s=1)
    assert (job.status, job.exit_code) == ("stopped", -signal.SIGTERM)


def test_a_job_that_hears_nothing_is_killed(place: LocalSubmitter, hold: Callable[..., Any]) -> None:
    job_id = hold().id
    pid = place.status(job_id).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert place.status(job_id).status == "running"
    job = place.stop(job_id, patience_s=0.2)
    assert (job.status, job.exit_code) == ("stopped", -signal.SIGKILL)
    assert gone(pid)


def test_what_a_job_leaves_behind_in_its_group_ends_with_it(
    place: LocalSubmitter,
    tmp_path: Path,
    until_ended: Wait,
    in_every_job: Callable[[str], dict[str, str]],
) -> None:
    note = tmp_path / "left"
    code = (
        f"import subprocess\nleft = subprocess.Popen({SLEEP})\nopen({str(note)!r}, 'w').write(str(left.pid))"
    )
    job_id = place.submit(JobSpec(("--version",), tmp_path, environment=in_every_job(code)))
    assert until_ended(job_id).status == "done"
    assert gone(int(note.read_text()))


def test_stopping_a_job_that_has_ended_changes_nothing(
    place: LocalSubmitter, tmp_path: Path, until_ended: Wait
) -> None:
    ids = [place.submit(JobSpec(words, tmp_path)) for words in (("--version",), ("data", "check", "nowhere"))]
    before = [until_ended(job_id) for job_id in ids]
    assert [place.stop(job_id) for job_id in ids] == before
    assert [place.status(job_id).status for job_id in ids] == ["done", "failed"]


def test_after_a_reboot_a_job_is_lost(place: LocalSubmitter, hold: Callable[..., Any]) -> None:
    """A record of another boot, whose pids and ticks have come again in this one."""
    job_id = hold().id
    record = json.loads((place.folder / job_id / "job.json").read_text())
    earlier = {
        who: {**record[who], "start": "another-boot/" + record[who]["start"].partition("/")[2]}
        for who in ("process", "keeper")
    }
    edit_record(place, job_id, **earlier)
    job = place.status(job_id)
    assert (job.status, job.exit_code, job.ended_at) == ("lost", None, None)
    edit_record(place, job_id, process=record["process"], keeper=record["keeper"])
    assert place.status(job_id).status == "running"


def test_a_process_that_has_a_lost_jobs_pid_by_now_gets_no_signal(
    place: LocalSubmitter, tmp_path: Path, until_ended: Wait
) -> None:
    job_id = place.submit(JobSpec(("--version",), tmp_path))
    until_ended(job_id)
    with subprocess.Popen(SLEEP, start_new_session=True) as stranger:
        reused = {"pid": stranger.pid, "start": Process.of(stranger.pid).start + "1"}
        edit_record(place, job_id, process=reused, keeper=reused, exit_code=None, ended_at=None)
        assert place.stop(job_id, patience_s=0).status == "lost"
        assert stranger.poll() is None
        stranger.kill()


def test_a_job_whose_keeper_was_killed_runs_on_and_is_lost_at_its_end(
    place: LocalSubmitter, hold: Callable[..., Any], until_ended: Wait
) -> None:
    job = hold()
    keeper = keeper_of(place, job.id)
    os.kill(keeper, signal.SIGKILL)
    assert gone(keeper)
    assert place.status(job.id).status == "running"
    job.let_go()
    assert until_ended(job.id).status == "lost"


def test_a_job_of_another_machine_is_not_stopped_from_here(
    place: LocalSubmitter, tmp_path: Path, until_ended: Wait
) -> None:
    job_id = place.submit(JobSpec(("--version",), tmp_path))
    until_ended(job_id)
    elsewhere = {"pid": os.getpid(), "start": "another-boot/1"}
    edit_record(
        place, job_id, process=elsewhere, keeper=elsewhere, exit_code=None, ended_at=None, host="other"
    )
    with pytest.raises(ClusterError, match="was started on other: stop it there"):
        place.stop(job_id)
    edit_record(place, job_id, host="here", exit_code=0)


def test_followed_output_comes_while_the_job_runs_and_ends_with_it(
    place: LocalSubmitter, hold: Callable[..., Any], in_every_job: Callable[[str], dict[str, str]]
) -> None:
    job = hold(in_every_job("print('ahoi ⚓', flush=True)"))
    pieces: list[str] = []
    first = threading.Event()

    def follow() -> None:
        for piece in place.logs(job.id, follow=True):
            pieces.append(piece)
            first.set()

    reader = threading.Thread(target=follow)
    reader.start()
    assert first.wait(20)
    assert place.status(job.id).status == "running"
    job.let_go()
    reader.join(20)
    assert not reader.is_alive()
    text = "".join(pieces)
    assert text.startswith("ahoi ⚓\n")
    assert text == (place.folder / job.id / "output.log").read_text()
    assert "error" in text


def test_the_environment_reaches_the_job_and_is_written_nowhere(
    place: LocalSubmitter,
    tmp_path: Path,
    until_ended: Wait,
    monkeypatch: pytest.MonkeyPatch,
    in_every_job: Callable[[str], dict[str, str]],
) -> None:
    seen = tmp_path / "seen"
    code = f"import os; open({str(seen)!r}, 'w').write(os.environ['INHERITED'] + os.environ['ADDED'])"
    monkeypatch.setenv("INHERITED", "hunter2")
    environment = {**in_every_job(code), "ADDED": "swordfish"}
    job_id = place.submit(JobSpec(("--version",), tmp_path, environment=environment))
    job = until_ended(job_id)
    assert seen.read_text() == "hunter2swordfish"
    written = [path.read_bytes() for path in place.folder.rglob("*") if path.is_file()]
    assert len(written) == 2
    for text in [*written, repr(job).encode()]:
        assert b"hunter2" not in text
        assert b"swordfish" not in text


def test_an_unknown_job_is_refused_and_the_known_ones_are_named(
    place: LocalSubmitter, tmp_path: Path
) -> None:
    place.submit(JobSpec(("--version",), tmp_path))
    for job_id in ("nowhere", "..", "", "version/../version", "/etc"):
        for ask in (place.status, place.logs, place.stop):
            with pytest.raises(ClusterError, match=r"there is no job .* \(jobs are: version\)"):
                ask(job_id)


def test_a_missing_working_folder_is_refused_and_leaves_no_job(place: LocalSubmitter, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="the working folder must exist"):
        place.submit(JobSpec(("--version",), tmp_path / "nowhere"))
    assert not place.folder.exists()


def test_a_job_that_can_not_be_written_down_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ClusterError, match="the job can't be started: Not a directory"):
        LocalSubmitter(tmp_path / "runs" / "jobs").submit(JobSpec(("--version",), tmp_path))


def test_a_keeper_that_can_not_start_is_told_and_leaves_no_job(place: LocalSubmitter, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="the job can't be started: "):
        place.submit(JobSpec(("--version",), tmp_path, environment={"PYTHONHOME": str(tmp_path)}))
    assert list(place.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "is damaged"),
        ('{"version": 1}', "is damaged"),
        ('{"version": 2}', "version must be 1, but got 2"),
    ],
)
def test_a_record_that_can_not_be_read_is_named_and_left_out_of_the_list(
    place: LocalSubmitter, text: str, match: str, caplog: pytest.LogCaptureFixture
) -> None:
    (place.folder / "odd").mkdir(parents=True)
    (place.folder / "odd" / "job.json").write_text(text)
    with pytest.raises(ClusterError, match=match):
        place.status("odd")
    with caplog.at_level(logging.WARNING):
        assert place.list() == ()
    assert "odd/job.json" in caplog.text


@pytest.mark.parametrize("patience_s", [-1.0, float("nan"), float("inf")])
def test_a_patience_that_is_no_time_is_refused(place: LocalSubmitter, patience_s: float) -> None:
    with pytest.raises(ClusterError, match="0 <= patience_s must hold"):
        place.stop("any", patience_s)


def test_a_place_is_built_by_its_name(tmp_path: Path) -> None:
    place: Submitter = build_submitter("local", tmp_path)
    assert place.list() == ()
    with pytest.raises(ClusterError, match="must be one of local, slurm, ray, kubernetes, but got 'moon'"):
        build_submitter("moon", tmp_path)


def test_a_process_that_is_gone_has_no_start() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    with pytest.raises(ClusterError, match="is not in /proc"):
        Process.of(process.pid)
