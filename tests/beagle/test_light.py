"""What may not be imported: seconds of start-up that a light command must not cost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "ray", "mlflow")
PROGRAM = f"""
import sys
from beagle.cli import run
code = run(sys.argv[1:])
found = sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))
sys.stderr.write("imported: " + " ".join(found) + chr(10))
sys.exit(code)
"""


def imported_by(*words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stderr.splitlines()[-1]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["evolve", "--help"], ["model", "list"]])
def test_help_and_lists_import_no_torch_no_ray_and_no_mlflow(words: list[str]) -> None:
    assert imported_by(*words) == "imported: "


@pytest.mark.parametrize("words", [["anchors", "fit"], ["anchors", "check"], ["data", "check"]])
def test_anchors_and_data_import_no_torch_no_ray_and_no_mlflow(words: list[str], tiny: Path) -> None:
    assert imported_by(*words, str(tiny)) == "imported: "


@pytest.mark.parametrize("words", [["status"], ["report"]])
def test_looking_at_a_run_imports_no_torch_no_ray_and_no_mlflow(words: list[str], finished_run: Path) -> None:
    extra = ["--out", "page.html"] if words == ["report"] else []
    assert imported_by(*words, str(finished_run), *extra) == "imported: "


def test_the_probe_sees_a_heavy_import() -> None:
    assert imported_by("model", "show", "yolov5n") == "imported: torch"
