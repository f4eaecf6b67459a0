"""How the command speaks."""

import json
from pathlib import Path

import numpy as np
import pytest

from beagle import console


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.123456, "0.1235"), (3, "3"), ("word", "word"), (1e-7, "1e-07"), (True, "True")],
)
def test_a_cell_is_short(value: object, text: str) -> None:
    assert console.cell_text(value) == text


def test_results_go_to_stdout_and_remarks_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_table("Title", ["name", "value"], [["a", 1.0]])
    console.note("a note")
    console.done("it is done")
    console.fail("it failed")
    out, err = capsys.readouterr()
    assert "Title" in out
    assert "note" not in out
    assert err == "· a note\n✓ it is done\nerror: it failed\n"


def test_square_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail("[bold]bounds[/bold] must lie in [0, 1], but got [/red]")
    console.show_table("T", ["[a]"], [["[/b]"]])
    out, err = capsys.readouterr()
    assert err == "error: [bold]bounds[/bold] must lie in [0, 1], but got [/red]\n"
    assert "[a]" in out
    assert "[/b]" in out


def test_a_long_error_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail("word " * 200 + "end")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_table_without_rows_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_table("Nothing", ["name", "value"], [])
    assert "Nothing" in capsys.readouterr().out


def test_json_has_plain_values(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_json({"path": Path("a/b"), "array": np.eye(2), "number": np.float32(0.5), "none": None})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"path": "a/b", "array": [[1, 0], [0, 1]], "number": 0.5, "none": None}
    assert err == ""


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set has no JSON form"):
        console.show_json({"a": {1}})


def test_bars_are_silent_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.bars() as advance:
        for count in range(3):
            advance("train", count + 1, 3)
            advance("val", count, 7)
    assert capsys.readouterr() == ("", "")
