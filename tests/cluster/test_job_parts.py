"""A job's own retry, the look from a worker, templates, and all jobs of a folder in one list."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from beagle.job_words import needs_of, option, resumable
from cluster.book import JobBook
from cluster.local import LocalSubmitter
from cluster.probe import Needs, findings, read_findings, too_many_gpus, versions_here
from cluster.ray_up import check_ray_up
from cluster.remote_record import RemoteRecord, load_remote
from cluster.spec import ClusterError, JobInfo, JobSpec, Resources
from cluster.templates import template

ATTEMPTS = (sys.executable, "-P", "-u", "-m", "cluster.attempts")


def test_what_the_user_can_mend_is_not_tried_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [*ATTEMPTS, "3", "data", "check", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "attempt" not in done.stderr
    assert done.stderr.count("nowhere") == 1


def test_a_killed_command_is_started_again_as_often_as_allowed(tmp_path: Path) -> None:
    pipe = tmp_path / "data.yaml"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [*ATTEMPTS, "1", "data", "check", str(pipe)], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    killed: set[int] = set()
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        told = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
        ).stdout
        for pid in set(map(int, told.split())) - killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    _, said = process.communicate(timeout=30)
    assert len(killed) == 2
    assert said.count("was killed by signal 9: attempt 2 of 2") == 1
    assert process.returncode == 128 + signal.SIGKILL


def test_variables_in_a_file_are_taken_and_the_file_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    path.write_text('{"BEAGLE_CACHE": "/nowhere/else"}')
    done = subprocess.run(
        [*ATTEMPTS, "--environment", str(path), "0", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, path.exists()) == (0, False)
    again = subprocess.run(
        [*ATTEMPTS, "--environment", str(path), "0", "--version"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "must be on storage that the cluster shares" in again.stderr


def test_a_machine_that_has_all_has_no_findings(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        needs = Needs((str(tmp_path),), (str(tmp_path / "new"),), (url,), 0.5, versions_here())
        assert findings(needs) == []
    assert findings(Needs()) == []


def test_each_thing_that_is_lacking_gets_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    needs = Needs(
        (str(tmp_path / "a"), str(tmp_path)),
        (str(tmp_path / "file" / "b"),),
        ("https://",),
        0,
        {"python": "2.7"},
    )
    told = findings(needs)
    assert [word in line for word, line in zip(("python", "/a ", "/b "), told, strict=False)] == [True] * 3
    assert len(told) == 4


def test_an_object_store_is_tried_where_the_job_would_run(
    bucket: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(Needs(stores=("s3://bucket/runs/a",))) == []
    (told,) = findings(Needs(stores=("s3://moon/runs/a",)))
    assert "s3://moon/runs/a: can't put" in told
    assert "is there such a bucket" in told
    monkeypatch.setattr("cluster.probe.STORE_S", 1.0)
    bucket.fault = lambda method, path: "deaf"  # type: ignore[attr-defined]
    (told,) = findings(Needs(stores=("s3://bucket/runs/a",)))
    assert "although it was told not to" in told


def test_a_probe_gets_a_job_s_variables_by_a_file_that_is_gone_then(bucket: object, tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    path.write_text(json.dumps(bucket.environment()))  # type: ignore[attr-defined]
    path.chmod(0o600)
    needs = Needs(stores=("s3://bucket/runs/a",)).to_json()
    bare = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}

    def look() -> tuple[str, ...]:
        words = [sys.executable, "-P", "-m", "cluster.probe", "--environment", str(path), needs]
        done = subprocess.run(
            words, env={**bare, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        return read_findings(done.stdout)

    assert look() == ()
    assert not path.exists()
    unread, _ = look()
    assert "so a job can't be given variables (--env)" in unread


def test_gpus_that_no_machine_of_the_job_has_are_told(place: LocalSubmitter, tmp_path: Path) -> None:
    assert too_many_gpus(Needs(gpus=0.5), 1) == []
    (told,) = too_many_gpus(Needs(gpus=2), 1)
    assert "a trial asks for 2 GPUs, but a machine of the job has 1" in told
    assert place.check(JobSpec(("evolve", "digits"), tmp_path), Needs()) == ()
    (told,) = place.check(JobSpec(("evolve", "digits"), tmp_path), Needs(gpus=99))
    assert "a trial asks for 99 GPUs, but this machine has" in told


@given(st.lists(st.text(), max_size=3), st.floats(0, 8))
def test_needs_survive_the_way_to_a_worker(paths: list[str], gpus: float) -> None:
    needs = Needs(tuple(paths), (), ("http://x",), gpus, {"ray": "2"})
    assert Needs.from_json(needs.to_json()) == needs


def test_findings_are_read_out_of_all_that_a_job_prints() -> None:
    assert read_findings('noise\nbeagle-probe:["a", "b"]\nmore\n') == ("a", "b")
    with pytest.raises(ClusterError, match="brought no answer"):
        read_findings("")


def test_an_evolution_is_handed_over_so_that_it_can_go_on(tmp_path: Path) -> None:
    words = resumable(("evolve", "digits"), tmp_path)
    assert words == ("evolve", "digits", "--out", str(tmp_path / "evolve"), "--resume")
    assert resumable(words) == words
    assert resumable(("evolve", "digits", "--out=here")) == ("evolve", "digits", "--out=here", "--resume")
    assert resumable(("train", "digits")) == ("train", "digits")


def test_needs_are_read_off_the_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    needs = needs_of(
        ("evolve", "data.yaml", "--gpus", "0.5", "--weights=w.pt", "--out", "/x/runs/a"), tmp_path
    )
    assert needs.paths == (str(tmp_path / "data.yaml"), str(tmp_path / "w.pt"))
    assert (needs.writable, needs.urls, needs.gpus) == (("/x/runs",), ("http://mlflow:5000",), 0.5)
    assert needs_of(("evolve", "digits"), tmp_path).paths == ()
    stored = needs_of(("evolve", "digits", "--out", "s3://bucket/a", "--hyp", "h.yaml"), tmp_path)
    assert (stored.stores, stored.writable) == (("s3://bucket/a",), ())
    assert stored.paths == (str(tmp_path / "h.yaml"),)
    assert needs_of(("resume", "gs://bucket/a"), tmp_path).stores == ("gs://bucket/a",)
    assert needs_of(("evolve", "--trainer", "c.yaml"), tmp_path).paths == (str(tmp_path / "c.yaml"),)
    assert needs_of(("evolve", "--trainer", "yolov5"), tmp_path).paths == ()
    assert option(("a", "--out"), "--out") is None


@pytest.mark.parametrize("settings", [{}, {"provider": "aws", "worker_type": "p4d.24xlarge"}])
def test_rays_own_check_accepts_its_template(settings: dict[str, str]) -> None:
    text = template("ray", Resources(nodes=3), settings)
    config = yaml.safe_load(text)
    assert all(
        "RAY_AUTH_MODE=token" in config[f"{kind}_start_ray_commands"][1] for kind in ("head", "worker")
    )


def test_a_template_that_ray_would_refuse_is_refused() -> None:
    with pytest.raises(ClusterError, match="Ray does not accept the configuration"):
        check_ray_up({"cluster_name": "x", "provider": {"type": "aws"}, "workers": 3})
    with pytest.raises(ClusterError, match="the kind must be one of ray, kuberay, slurm, but got 'moon'"):
        template("moon", Resources(), {})


def test_the_other_templates_are_what_submit_would_send() -> None:
    assert yaml.safe_load(template("kuberay", Resources(gpus=1), {}))["kind"] == "RayCluster"
    script = template("slurm", Resources(nodes=2, gpus=8), {"partition": "gpu", "python": "/opt/bin/python"})
    assert "#SBATCH --partition=gpu" in script
    assert "python=/opt/bin/python" in script


def test_a_job_that_has_ended_can_be_handed_over_once_more(
    place: LocalSubmitter, tmp_path: Path, until_ended: Callable[[str], JobInfo], hold: Callable[..., object]
) -> None:
    book = JobBook(place.folder)
    first = place.submit(JobSpec(("data", "check", "nowhere"), tmp_path, "look"))
    until_ended(first)
    again = book.retry(first)
    assert (again, until_ended(again).words) == ("look-2", ("data", "check", "nowhere"))
    held = hold()
    with pytest.raises(ClusterError, match="is running: stop it first"):
        book.retry(str(getattr(held, "id", "")))
    with pytest.raises(ClusterError, match="there is no job 'moon'"):
        book.status("moon")


def test_a_remote_record_is_read_back_and_a_damaged_one_refused(tmp_path: Path) -> None:
    spec = JobSpec(("train", "x"), tmp_path, "job", {"A": "b"}, Resources(nodes=2, hours=1.5), 4)
    (tmp_path / "job").mkdir()
    record = RemoteRecord.of(tmp_path / "job", "slurm", "77", spec, {"partition": "gpu"})
    record.save(tmp_path / "job")
    assert load_remote(tmp_path, "job") == record
    back = record.to_spec()
    assert (back.words, back.resources, back.retries, dict(back.environment)) == (
        spec.words,
        spec.resources,
        4,
        {},
    )
    path = tmp_path / "job" / "remote.json"
    assert '"A"' not in path.read_text()
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ClusterError, match=r"remote\.json: the job's record is damaged"):
        load_remote(tmp_path, "job")
    path.write_text('{"version": 9}')
    with pytest.raises(ClusterError, match="the record's version must be 1, but got 9"):
        load_remote(tmp_path, "job")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"nodes": 0}, "nodes >= 1 must hold, but got 0"),
        ({"cpus": 0}, "cpus >= 1 must hold"),
        ({"gpus": -1}, "gpus >= 0 must hold"),
        ({"memory_gb": float("inf")}, "memory > 0 must hold and be finite"),
        ({"hours": -1.0}, "hours > 0 must hold"),
    ],
)
def test_resources_that_no_machine_has_are_refused(change: dict[str, float], match: str) -> None:
    with pytest.raises(ClusterError, match=match):
        Resources(**change)  # type: ignore[arg-type]  # one of each kind
