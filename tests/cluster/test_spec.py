import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import ClusterError, JobInfo, JobSpec
from cluster.spec import NAME

HERE = Path("/")


@given(st.lists(st.text(st.characters(exclude_characters="\0")), min_size=1).map(tuple))
def test_any_words_make_a_usable_name_unless_they_are_refused(words: tuple[str, ...]) -> None:
    if words[0] in ("", "beagle"):
        with pytest.raises(ClusterError, match="words must be those after `beagle`"):
            JobSpec(words, HERE)
    else:
        spec = JobSpec(words, HERE)
        assert NAME.fullmatch(spec.name)
        assert spec.words == words


@pytest.mark.parametrize(
    ("words", "name"),
    [(("evolve", "digits"), "evolve"), (("--version",), "version"), (("!",), "job"), (("x" * 99,), "x" * 50)],
)
def test_the_first_word_names_the_job(words: tuple[str, ...], name: str) -> None:
    assert JobSpec(words, HERE).name == name


@pytest.mark.parametrize("words", [(), ("",), ("beagle", "train"), ("train", "a\0b")])
def test_words_that_are_no_command_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ClusterError, match="words must be those after `beagle`"):
        JobSpec(words, HERE)


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "-x", "a b", "ä", "x" * 51, "a\n"])
def test_a_name_that_is_no_plain_file_name_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="a job's name must be"):
        JobSpec(("train",), HERE, name)


def test_a_relative_working_folder_is_refused() -> None:
    with pytest.raises(ClusterError, match="must be absolute, but got here"):
        JobSpec(("train",), Path("here"))


@pytest.mark.parametrize("environment", [{"": "hunter2"}, {"A=B": "hunter2"}, {"A": "hunter2\0"}])
def test_a_variable_that_can_not_be_set_is_refused_without_showing_its_value(
    environment: dict[str, str],
) -> None:
    with pytest.raises(ClusterError, match="a variable needs a name") as caught:
        JobSpec(("train",), HERE, environment=environment)
    assert "hunter2" not in str(caught.value)


def test_a_spec_can_not_be_changed_and_hides_its_environment() -> None:
    given_away = {"COLOUR": "hunter2"}
    spec = JobSpec(("train",), HERE, environment=given_away)
    given_away["COLOUR"] = "changed"
    assert spec.environment["COLOUR"] == "hunter2"
    assert "hunter2" not in repr(spec)
    with pytest.raises(TypeError):
        spec.environment["COLOUR"] = "x"  # type: ignore[index] # that it is refused is the test
    with pytest.raises(FrozenInstanceError):
        spec.name = "x"  # type: ignore[misc] # that it is refused is the test


def test_how_a_job_stands_is_plain_data() -> None:
    job = JobInfo("a", ("train",), "running", None, 1.0, None, "here", 7, HERE, None)
    assert json.loads(json.dumps(job.to_dict())) == {
        "id": "a",
        "words": ["train"],
        "status": "running",
        "exit_code": None,
        "started_at": 1.0,
        "ended_at": None,
        "host": "here",
        "pid": 7,
        "folder": "/",
        "log": None,
        "place": "local",
        "native_id": "",
        "detail": "",
    }
