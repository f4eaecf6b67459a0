"""The exported folder: whole or not there, and traceable."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.export import HERE, ExportError, ExportFiles, export_run, shell_variable
from evolve.journal import JournalError, RunState, TrialState
from evolve.space import Gene, Space

SPACE = Space([Gene("momentum", 0.6, 0.98, start=0.937), Gene("lr0", 1e-5, 0.1, start=0.01, log=True)])
CONFIG = {"lr0": 1.2345e-05, "momentum": 0.9}


def write_run(folder: Path, *, name: str = "first-run", status: str = "finished", **result: Any) -> Path:
    """A run whose trial 0 is the start and whose trial 1 leads."""
    events: list[dict[str, Any]] = [
        {
            "event": "run",
            "time": 1000.0,
            "version": 1,
            "name": name,
            "trials": 5,
            "seed": 3,
            "space": SPACE.to_dict(),
            "search": {},
            "settings": {"data": "digits", "rate": float("nan")},
            "resources": {},
            "provenance": {"git_commit": "abc123", "data": "9f00", "versions": {"numpy": "2.3.1"}},
        }
    ]
    for number, config in enumerate((SPACE.start, CONFIG)):
        origin = {"kind": "random" if number else "start", "parents": []}
        events.append({"event": "ask", "time": 1001.0, "trial": number, "config": config, "origin": origin})
        fitness = 0.4 + 0.1 * number if status == "finished" else None
        events.append(
            {
                "event": "tell",
                "time": 1767225600.0,
                "trial": number,
                "status": status,
                "fitness": fitness,
                "reason": None,
                "metrics": {"map50": 0.6},
                "epochs": 2,
                "seconds": 9.0,
                "result": result if number else {},
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def with_weights(folder: Path) -> Path:
    run = write_run(folder, best="trials/0001/best.pt", notes=["one image was dropped"])
    (run / "trials/0001").mkdir(parents=True)
    (run / "trials/0001/best.pt").write_bytes(b"weights")
    return run


def detector_files(state: RunState, best: TrialState) -> ExportFiles:
    """What a wiring would add."""
    return ExportFiles(
        command=["python", "-c", "import sys; print(open('model.yaml').read() + sys.argv[1])"],
        hyp={"fliplr": 0.5, **best.config},
        texts={"model.yaml": f"# of {state.name}\nclasses: 3\n"},
    )


def test_the_folder_holds_all_that_a_training_needs(tmp_path: Path) -> None:
    target = export_run(
        with_weights(tmp_path / "run"), tmp_path / "out" / "winner", build_files=detector_files
    )
    names = sorted(path.name for path in target.iterdir())
    assert names == ["best.pt", "hyp.yaml", "model.yaml", "notes.md", "provenance.json", "train.sh"]
    assert (target / "best.pt").read_bytes() == b"weights"
    assert sorted(path.name for path in target.parent.iterdir()) == ["winner"]


def test_hyperparameters_read_back_exactly_with_the_genes_first_and_say_where_they_are_from(
    tmp_path: Path,
) -> None:
    target = export_run(with_weights(tmp_path / "run"), tmp_path / "winner", build_files=detector_files)
    text = (target / "hyp.yaml").read_text()
    assert text.splitlines()[:3] == [
        "# Run first-run, trial 1 of 5 (random).",
        "# It had fitness 0.5 after 2 epochs, finished 2026-01-01 00:00 UTC.",
        "# Not confirmed: fitness 0.5000 after one training of 2 epochs is the best of 2 configurations, so a new "
        "training will rather give less. `beagle confirm` trains the best again under new seeds.",
    ]
    assert list(yaml.safe_load(text).items()) == [("momentum", 0.9), ("lr0", 1.2345e-05), ("fliplr", 0.5)]


def test_without_a_caller_the_genes_alone_are_exported(tmp_path: Path) -> None:
    target = export_run(write_run(tmp_path / "run"), tmp_path / "winner")
    assert sorted(path.name for path in target.iterdir()) == ["hyp.yaml", "notes.md", "provenance.json"]
    assert yaml.safe_load((target / "hyp.yaml").read_text()) == CONFIG


def test_the_training_command_runs_in_the_folder_from_anywhere(tmp_path: Path) -> None:
    target = export_run(write_run(tmp_path / "run"), tmp_path / "a folder", build_files=detector_files)
    script = target / "train.sh"
    assert "set -eu\n" in script.read_text()
    assert os.access(script, os.X_OK)
    answer = subprocess.run([script, "more"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout == "# of first-run\nclasses: 3\nmore\n"


def test_arguments_of_the_command_are_no_shell(tmp_path: Path) -> None:
    words = ["printf", "%s|", "$(touch leaked)", "; touch leaked", "a'b", ""]
    run = write_run(tmp_path / "run", name="x\ntouch leaked")
    target = export_run(run, tmp_path / "winner", build_files=lambda _, __: ExportFiles(command=words))
    answer = subprocess.run([target / "train.sh"], capture_output=True, text=True, check=True)
    assert answer.stdout == "$(touch leaked)|; touch leaked|a'b||"
    assert not (target / "leaked").exists()


def test_words_may_name_the_folder_and_variables_wherever_it_is_moved(tmp_path: Path) -> None:
    files = ExportFiles(
        command=[
            "printf",
            "%s|",
            f"--hyp={HERE}/hyp.yaml",
            shell_variable("DATA"),
            f"{shell_variable('DATA')} x",
            "$PWD",
        ],
        directory=str(tmp_path / "a place"),
        environment={"TOKEN": f"{HERE}/it's"},
        variables={"DATA": "my data"},
    )
    (tmp_path / "a place").mkdir()
    target = export_run(write_run(tmp_path / "run"), tmp_path / "winner", build_files=lambda _, __: files)
    moved = target.rename(tmp_path / "a 'moved' one")
    own = {key: value for key, value in os.environ.items() if key != "DATA"}
    words = [moved / "train.sh", "more"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, env=own)
    assert answer.stdout == f"--hyp={moved}/hyp.yaml|my data|my data x|$PWD|more|"
    answer = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**own, "DATA": "other $HOME"}
    )
    assert answer.stdout == f"--hyp={moved}/hyp.yaml|other $HOME|other $HOME x|$PWD|more|"


def test_a_variable_that_must_be_set_says_so(tmp_path: Path) -> None:
    files = ExportFiles(command=["pwd"], directory=shell_variable("PROGRAM"), variables={"PROGRAM": None})
    target = export_run(write_run(tmp_path / "run"), tmp_path / "winner", build_files=lambda _, __: files)
    own = {key: value for key, value in os.environ.items() if key != "PROGRAM"}
    answer = subprocess.run([target / "train.sh"], capture_output=True, text=True, check=False, env=own)
    assert answer.returncode != 0
    assert "PROGRAM: must be set, see notes.md" in answer.stderr
    answer = subprocess.run(
        [target / "train.sh"],
        capture_output=True,
        text=True,
        check=True,
        env={**own, "PROGRAM": str(tmp_path)},
    )
    assert answer.stdout.strip() == str(tmp_path)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12), min_size=1, max_size=4
    )
)
def test_any_words_reach_the_program_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("words")
    files = ExportFiles(command=["printf", "%s\n\n", *words])
    target = export_run(write_run(folder / "run"), folder / "winner", build_files=lambda _, __: files)
    answer = subprocess.run([target / "train.sh"], capture_output=True, check=True)
    assert answer.stdout == "".join(f"{word}\n\n" for word in words).encode()


def test_notes_are_paragraphs_of_a_file_and_facts_stand_in_the_provenance(tmp_path: Path) -> None:
    files = ExportFiles(notes=["first\nline", "second"], facts={"format": "own"})
    target = export_run(write_run(tmp_path / "run"), tmp_path / "winner", build_files=lambda _, __: files)
    text = (target / "notes.md").read_text()
    assert text.startswith("# first-run: what to know\n\n- Not confirmed: fitness 0.5000 after one training")
    assert text.endswith("\n- first line\n- second\n")
    facts = json.loads((target / "provenance.json").read_text())
    assert facts["format"] == "own"
    assert "notes.md" in facts["files"]


def test_provenance_names_run_trial_versions_and_the_digest_of_every_file(tmp_path: Path) -> None:
    target = export_run(with_weights(tmp_path / "run"), tmp_path / "winner", build_files=detector_files)
    facts = json.loads((target / "provenance.json").read_text())
    expected = {
        "version": 1,
        "run": "first-run",
        "trial": 1,
        "fitness": 0.5,
        "start_fitness": 0.4,
        "seed": 3,
        "finished_at": "2026-01-01T00:00:00+00:00",
        "provenance": {"git_commit": "abc123", "data": "9f00", "versions": {"numpy": "2.3.1"}},
        "settings": {"data": "digits", "rate": None},
        "notes": ["one image was dropped"],
    }
    assert {key: facts[key] for key in expected} == expected
    assert facts["files"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in target.iterdir()
        if path.name != "provenance.json"
    }


def test_an_existing_target_is_refused_and_left_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "winner").mkdir()
    with pytest.raises(ExportError, match="the target must not exist yet"):
        export_run(run, tmp_path / "winner")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ExportError, match="the target must not exist yet"):
        export_run(run, tmp_path / "link")
    assert list((tmp_path / "winner").iterdir()) == []


def test_a_run_without_a_finished_trial_has_nothing_to_export(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="failed")
    with pytest.raises(ExportError, match=r"but none has \(2 failed, 0 running\)"):
        export_run(run, tmp_path / "winner")


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"journal\.jsonl"):
        export_run(tmp_path, tmp_path / "winner")


def test_missing_weights_are_an_error_unless_they_are_not_wanted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", best="trials/0001/best.pt")
    with pytest.raises(ExportError, match=r"best\.pt: the best weights are missing"):
        export_run(run, tmp_path / "winner")
    assert not (tmp_path / "winner").exists()
    assert (export_run(run, tmp_path / "winner", weights=False) / "hyp.yaml").is_file()


@pytest.mark.parametrize("path", ["/etc/hostname", "../../secret", ".."])
def test_weights_outside_the_run_are_refused(tmp_path: Path, path: str) -> None:
    run = write_run(tmp_path / "run", best=path)
    with pytest.raises(ExportError, match="must lie in the run's folder"):
        export_run(run, tmp_path / "winner")


def test_a_copy_may_stand_for_the_weights_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    run = with_weights(tmp_path / "run")
    (tmp_path / "other.pt").write_bytes(b"other")
    copies = {"best.pt": tmp_path / "other.pt"}
    target = export_run(run, tmp_path / "winner", build_files=lambda _, __: ExportFiles(copies=copies))
    assert (target / "best.pt").read_bytes() == b"other"
    gone = {"names.txt": tmp_path / "gone.txt"}
    with pytest.raises(ExportError, match=r"gone\.txt: the file to export as names\.txt is missing"):
        export_run(run, tmp_path / "second", build_files=lambda _, __: ExportFiles(copies=gone))


@pytest.mark.parametrize("name", ["", "..", "a/b", "/x", "hyp.yaml", "train.sh", "provenance.json", "a\0b"])
def test_a_file_name_that_leaves_the_folder_or_is_taken_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match=r"plain name|writes .* itself"):
        ExportFiles(texts={name: "text"})


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"model\.yaml is given as both"):
        ExportFiles(texts={"model.yaml": ""}, copies={"model.yaml": tmp_path})


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    long_name = "x" * 300
    with pytest.raises(ExportError, match="winner: the export cannot be written"):
        export_run(
            run, tmp_path / "winner", build_files=lambda _, __: ExportFiles(texts={"a": "", long_name: ""})
        )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_values_that_yaml_has_no_words_for_are_refused(tmp_path: Path) -> None:
    hyp: dict[str, Any] = {"lr0": object()}
    with pytest.raises(ExportError, match="plain numbers or words"):
        export_run(
            write_run(tmp_path / "run"), tmp_path / "winner", build_files=lambda _, __: ExportFiles(hyp=hyp)
        )


@settings(max_examples=30, deadline=None)
@given(name=st.text(max_size=30), lr0=st.floats(1e-5, 0.1), momentum=st.floats(0.6, 0.98))
def test_any_run_name_and_values_read_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, lr0: float, momentum: float
) -> None:
    folder = tmp_path_factory.mktemp("export")
    hyp = {"lr0": lr0, "momentum": momentum}
    run = write_run(folder / "run", name=name)
    target = export_run(run, folder / "winner", build_files=lambda _, __: ExportFiles(hyp=hyp))
    assert yaml.safe_load((target / "hyp.yaml").read_text()) == hyp
    assert json.loads((target / "provenance.json").read_text())["run"] == name
