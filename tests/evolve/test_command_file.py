"""The file of a trainer that is a command: what it may say, and what each mistake is told."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evolve.command_file import load_genes, load_trainer, ready_made
from evolve.command_spec import CommandSpec, SpecError
from evolve.command_values import command_words, devices, hyperparameters
from evolve.command_words import PLACEHOLDERS, TemplateError, fields_of, fill
from evolve.space import EvolveError, Space

LEAST = {
    "command": ["{python}", "train.py", "--lr", "{gene:lr}"],
    "genes": {"lr": {"low": 1e-4, "high": 0.1, "log": True, "start": 0.01}},
    "results": {"format": "jsonl", "file": "{out}/log.jsonl", "fitness": "score"},
}


def write(folder: Path, **changes: object) -> str:
    path = folder / "command.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **changes}))
    return str(path)


def test_the_least_file_is_enough(tmp_path: Path) -> None:
    spec = load_trainer(write(tmp_path))
    assert (spec.name, spec.working_directory, spec.resume) == ("command", "{cwd}", ())
    assert spec.results.fitness == {"score": 1.0}
    assert Space(spec.genes).start == {"lr": 0.01}
    assert spec.limits.silent_s == 3600


@pytest.mark.parametrize("name", ready_made())
def test_ready_made_trainers_go_through_json_unchanged(name: str) -> None:
    spec = load_trainer(name)
    assert CommandSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert Space(spec.genes).start.keys() <= spec.handover.fixed.keys()


def test_the_files_of_the_documentation_are_accepted(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/trainers.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.yaml").write_text(block)
        load_trainer(str(tmp_path / f"{number}.yaml"))
    for name in PLACEHOLDERS:
        assert f"{{{name}}}" in text


def test_ultralytics_is_told_its_optimiser_or_it_would_ignore_the_rate() -> None:
    assert "optimizer=SGD" in load_trainer("ultralytics").command


BAD = {
    "no command": ({"command": []}, r"command: must be given"),
    "a shell string": ({"command": "python train.py"}, r"command: must be a list of words"),
    "unknown key": ({"comand": ["x"]}, r"key 'comand' is unknown; did you mean 'command'"),
    "unknown placeholder": (
        {"command": ["{epoch}"]},
        r"command: placeholder 'epoch' is unknown; did you mean 'epochs'",
    ),
    "open brace": ({"command": ["{epochs"]}, r"command: a brace must have its partner"),
    "unknown gene": ({"command": ["{gene:lr0}"]}, r"command: gene 'lr0' is unknown; did you mean 'lr'"),
    "no gene handed over": ({"command": ["train"]}, r"command: must be handed the genes"),
    "no genes": ({"genes": {}}, r"genes: must name a gene at least"),
    "genes are a list": ({"genes": [1]}, r"genes: must be a map of keys"),
    "bounds turned": ({"genes": {"lr": [0.1, 0.01]}}, r"genes: gene lr: low < high must hold"),
    "half a gene": ({"genes": {"lr": {"low": 1}}}, r"genes\.lr\.high: must be given"),
    "a gene of text": ({"genes": {"lr": ["a", 1]}}, r"genes\.lr\.low: must be a number"),
    "log of text": (
        {"genes": {"lr": {"low": 1, "high": 2, "log": "yes"}}},
        r"genes\.lr\.log: must be true or false",
    ),
    "no results": ({"results": None}, r"results\.format: must be given"),
    "unknown format": (
        {"results": {**LEAST["results"], "format": "xml"}},
        r"results\.format: must be one of csv",
    ),
    "no fitness": ({"results": {"format": "csv", "file": "{out}/a"}}, r"results\.fitness: must be given"),
    "weights of text": (
        {"results": {**LEAST["results"], "fitness": {"a": "much"}}},
        r"results\.fitness\.a: must be a number",
    ),
    "bad pattern": (
        {"results": {"format": "regex", "pattern": "(", "fitness": "a"}},
        r"results\.pattern: must be a regular expression",
    ),
    "group missing": (
        {"results": {"format": "regex", "pattern": "(?P<b>.)", "fitness": "a"}},
        r"results\.pattern: must have a group \(\?P<a>",
    ),
    "shared results": (
        {"results": {**LEAST["results"], "file": "runs/results.csv"}},
        r"results\.file: must lie in \{out\} or \{folder\}",
    ),
    "resume without checkpoint": ({"checkpoint": {"resume": ["x"]}}, r"checkpoint\.last: must be given"),
    "checkpoint in the command": (
        {"command": ["{checkpoint}", "{gene:lr}"]},
        r"must not name \{checkpoint\}",
    ),
    "file with a folder": (
        {"hyperparameters": {"file": "../hyp.yaml"}},
        r"hyperparameters\.file: must be a plain",
    ),
    "argument without a place": (
        {"hyperparameters": {"arguments": ["--x"]}},
        r"hyperparameters\.arguments: each word",
    ),
    "name of no gene": (
        {"hyperparameters": {"names": {"lr0": "x"}}},
        r"hyperparameters\.names: gene 'lr0' is unknown",
    ),
    "negative limit": ({"limits": {"silent_s": -1}}, r"limits\.silent_s: must be a number of at least 0\.1"),
    "half an epoch": ({"production": {"epochs": 1.5}}, r"production\.epochs: must be a whole number"),
    "share of no gene": (
        {"production": {"per_length": ["a"]}},
        r"production\.per_length: gene 'a' is unknown",
    ),
    "environment of numbers": ({"environment": {"A": 1}}, r"environment\.A: must be a text"),
    "unknown default": ({"defaults": {"epoch": 1}}, r"defaults: key 'epoch' is unknown"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_with_file_and_key(case: str, tmp_path: Path) -> None:
    changes, match = BAD[case]
    path = write(tmp_path, **changes)
    with pytest.raises(SpecError, match=match) as caught:
        load_trainer(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_yaml_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"trainer 'yolov' is unknown; did you mean 'yolov5'"):
        load_trainer("yolov")
    with pytest.raises(SpecError, match=r"can't be read \(No such file"):
        load_trainer(str(tmp_path / "gone.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(SpecError, match="not valid YAML"):
        load_trainer(str(tmp_path / "bad.yaml"))


def test_a_relative_working_directory_lies_below_the_file(tmp_path: Path) -> None:
    assert load_trainer(write(tmp_path, working_directory="code")).working_directory == str(tmp_path / "code")


def test_a_user_s_space_takes_the_rest_from_the_trainer(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("lr0: {high: 0.05}\nfl_gamma: [0, 2]\n")
    genes = {gene.name: gene for gene in load_genes(path, load_trainer("yolov5"))}
    assert (genes["lr0"].low, genes["lr0"].high, genes["lr0"].log, genes["lr0"].start) == (
        1e-5,
        0.05,
        True,
        0.01,
    )
    assert genes["fl_gamma"].start == 0
    path.write_text("lr9: [0, 1]\n")
    with pytest.raises(EvolveError, match=r"space\.yaml: key 'lr9' is unknown"):
        load_genes(path, load_trainer("yolov5"))


@given(st.dictionaries(st.sampled_from(sorted(PLACEHOLDERS)), st.text(max_size=8), min_size=1))
def test_a_filled_word_is_one_word_and_values_are_never_read_as_templates(values: dict[str, str]) -> None:
    template = "|".join(f"{{{name}}}" for name in values)
    assert fields_of(template) == set(values)
    assert fill(template, values) == "|".join(values.values())


@given(st.text(alphabet="ab{}", max_size=8))
def test_braces_are_filled_or_refused(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert fill(doubled, {}) == text


def test_a_placeholder_without_a_value_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"there is no \{hyp\} here"):
        fill("{hyp}", {})


def test_names_are_mapped_and_values_are_handed_over_as_words(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        command=["train", "--fast", "{gene:lr}"],
        genes={"lr": [0.0, 1.0], "momentum": {"low": 0, "high": 1, "start": 0.5}, "decay": [0, 1]},
        hyperparameters={
            "arguments": ["--{name}", "{value}"],
            "names": {"momentum": "beta"},
            "fixed": {"cos": True, "none": None, "decay": 0.1},
        },
    )
    spec = load_trainer(path)
    assert hyperparameters(spec, {"lr": 0.25}) == {
        "cos": True,
        "none": None,
        "decay": 0.1,
        "beta": 0.5,
        "lr": 0.25,
    }
    words = command_words(spec, {"gene:lr": 0.25}, {"lr": 0.25, "momentum": 0.9})
    assert words == ["train", "--fast", "0.25", "--cos", "True", "--decay", "0.1", "--beta", "0.9"]


@pytest.mark.parametrize(
    ("wanted", "gpus", "visible", "expected"),
    [
        ("auto", 0.0, "0,1", ("cpu", "cpu", "cpu")),
        ("auto", 0.5, "3", ("3", "0", "")),
        ("auto", 2.0, "4,6", ("4,6", "0,1", "")),
        ("auto", 1.0, "", ("cpu", "cpu", "cpu")),
        ("cpu", 1.0, "3", ("cpu", "cpu", "cpu")),
        ("cuda", 0.0, "", ("0", "0", "")),
        ("cuda:1", 0.0, "", ("1", "0", "")),
    ],
)
def test_a_command_is_told_the_gpus_that_ray_gave(
    wanted: str, gpus: float, visible: str, expected: tuple[str, str, str]
) -> None:
    found = devices(wanted, gpus, {"CUDA_VISIBLE_DEVICES": visible})
    assert (found["device"], found["device_index"], found["cpu"]) == expected
