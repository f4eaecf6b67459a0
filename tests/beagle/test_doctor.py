"""The doctor: what it finds here, and what it finds where something is wrong."""

import json
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


@pytest.fixture
def findings(beagle: Callable[..., object]) -> Callable[..., dict[str, dict[str, str]]]:
    """``findings("digits", "--quick")``: what was looked at, by its name, and the exit code under "code"."""

    def look(*words: object) -> dict[str, dict[str, str]]:
        said = beagle("doctor", "--json", *words)
        return {each["what"]: each for each in json.loads(said.out)} | {"code": {"state": str(said.code)}}

    return look


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_quick_look_finds_packages_run_folder_and_data_in_order_and_leaves_nothing(
    findings: Callable[..., dict[str, dict[str, str]]], tiny: Path, workplace: Path
) -> None:
    found = findings(tiny, "--quick")
    for what in ("Python", "packages", "run folder", "MLflow", "data"):
        assert found[what]["state"] == "ok", found[what]
    assert "12 images" in found["data"]["found"]
    assert found["code"]["state"] == "0"
    assert "cpu" not in found
    assert list(workplace.iterdir()) == []


def test_the_devices_are_tried_by_real_steps_and_ray_by_real_tasks(
    findings: Callable[..., dict[str, dict[str, str]]],
) -> None:
    found = findings()
    assert found["cpu"]["state"] == "ok"
    assert "float32" in found["cpu"]["found"]
    assert found["Ray"]["state"] == "ok"
    assert "1 node," in found["Ray"]["found"]


def test_a_run_folder_that_cannot_be_written_is_a_fault_that_ends_with_1(
    findings: Callable[..., dict[str, dict[str, str]]],
) -> None:
    found = findings("--quick", "--runs", "/proc/runs")
    assert found["run folder"]["state"] == "fault"
    assert "--out" in found["run folder"]["advice"]
    assert found["code"]["state"] == "1"


def test_data_that_cannot_be_trained_on_is_a_fault_that_names_the_file(
    findings: Callable[..., dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    data = tmp_path / "data.yaml"
    data.write_text("train: nowhere\nval: nowhere\nnames: [a]\n")
    found = findings(data, "--quick")
    assert found["data"]["state"] == "fault"
    assert "beagle data check" in found["data"]["advice"]
    assert found["code"]["state"] == "1"


def test_a_server_of_mlflow_that_does_not_answer_is_a_warning_without_its_password(
    findings: Callable[..., dict[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # bound and never listened on
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:secret@127.0.0.1:{closed.getsockname()[1]}")
        found = findings("--quick")
    assert found["MLflow"]["state"] == "warning"
    assert "secret" not in json.dumps(found)
    assert found["code"]["state"] == "0"


@pytest.mark.usefixtures("few_files")
def test_few_open_files_are_a_warning(findings: Callable[..., dict[str, dict[str, str]]]) -> None:
    found = findings("--quick")
    assert found["open files"]["state"] == "warning"
    assert "ulimit" in found["open files"]["advice"]
