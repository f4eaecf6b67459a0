"""What importing the room costs, and what it gives."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_reading_and_writing_model_files_loads_no_torch() -> None:
    code = (
        "import sys, model, model.zoo\n"
        "from model.spec import load_spec, spec_to_yaml, zoo_names\n"
        "for name in zoo_names(): spec_to_yaml(load_spec(name, classes=3))\n"
        "print('torch' in sys.modules)"
    )
    assert run_python(code) == "False"


def test_build_is_the_function_whatever_was_imported_before() -> None:
    code = (
        "import model.spec, model.detector, model.head, model.layers\n"
        "from model import Detector, build\n"
        "print(isinstance(build('yolov5n', classes=1), Detector))"
    )
    assert run_python(code) == "True"


def test_a_name_that_the_room_lacks_is_an_attribute_error() -> None:
    import model

    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = model.biuld
