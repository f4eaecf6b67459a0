"""Reading what programs write, also while they are at it."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.command_results import (
    Reader,
    ResultsError,
    best_epoch,
    read_csv,
    read_json,
    read_json_lines,
    read_pattern,
)
from evolve.command_spec import Results

CSV = Results("csv", "", {"map": 1.0, "loss": -0.5}, {"map50": "map"}, "epoch", 1)
PADDED = "               epoch,                 map,                loss\n" + "".join(
    f"{epoch:20},{0.1 * epoch:20.5g},{0.2:20.5g}\n" for epoch in (1, 2, 3)
)


def test_padded_heads_and_cells_are_read() -> None:
    assert read_csv(PADDED)[2] == {"epoch": 3.0, "map": 0.3, "loss": 0.2}


@given(st.integers(0, len(PADDED)))
def test_a_csv_cut_anywhere_has_whole_rows_alone(cut: int) -> None:
    rows = read_csv(PADDED[:cut])
    assert rows == read_csv(PADDED)[: len(rows)]


@pytest.mark.parametrize("text", ["", "\n", "epoch,map", "epoch,map\n", "\0\0\n"])
def test_a_file_without_rows_is_no_error(text: str) -> None:
    assert [row for row in read_csv(text) if row] == []


def test_what_is_no_number_is_left_out_of_its_row() -> None:
    assert read_csv("a,b,c\n1,,x\n")[0] == {"a": 1.0}
    assert math.isnan(read_csv("a\nnan\n")[0]["a"])


def test_json_is_a_list_an_object_or_a_path_into_one() -> None:
    assert read_json('[{"a": 1}, 2, {"b": {"c": 3}}]') == [{"a": 1.0}, {"b.c": 3.0}]
    assert read_json('{"a": 1, "text": "x"}') == [{"a": 1.0}]
    assert read_json('{"runs": {"all": [{"a": 1}]}}', "runs.all") == [{"a": 1.0}]
    assert read_json('{"runs": 1}', "runs.all") == []
    assert read_json('{"a": ') == []
    assert read_json_lines('{"a": 1}\nnoise\n{"a": 2}\n{"a"') == [{"a": 1.0}, {"a": 2.0}]


def test_a_pattern_is_found_in_a_log_with_progress_bars() -> None:
    log = "epoch 1: 50%\repoch 1: map 0.25\r\nother\nepoch 2: map 0.5\nepoch 3: map 0."
    assert read_pattern(log, r"epoch (?P<epoch>\d+): map (?P<map>[\d.]+)") == [
        {"epoch": 1.0, "map": 0.25},
        {"epoch": 2.0, "map": 0.5},
    ]


def reader(folder: Path, text: str) -> Reader:
    (folder / "r.csv").write_text(text)
    return Reader(CSV, str(folder / "r.csv"), folder / "log")


def test_epochs_count_from_zero_with_a_weighted_fitness_and_the_last_row_of_an_epoch(tmp_path: Path) -> None:
    found = reader(tmp_path, PADDED + "2,0.9,0.2\n").epochs()
    assert list(found) == [0, 1, 2]
    assert found[1]["fitness"] == pytest.approx(0.9 - 0.1)
    assert found[1]["map50"] == 0.9


def test_a_row_without_the_fitness_is_an_epoch_all_the_same(tmp_path: Path) -> None:
    found = reader(tmp_path, "epoch,map,loss\n1,,0.5\n2,0.4,0.5\n").epochs()
    assert found == {0: {}, 1: {"fitness": pytest.approx(0.15), "map50": 0.4}}


def test_missing_columns_are_named_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"needs 'loss', but there is only epoch, map"):
        reader(tmp_path, "epoch,map\n1,0.4\n").check_columns()
    with pytest.raises(ResultsError, match="wrote no results there"):
        reader(tmp_path, "").check_columns()


def test_files_that_are_not_there_yet_have_no_epochs(tmp_path: Path) -> None:
    assert Reader(CSV, str(tmp_path / "gone.csv"), tmp_path / "log").epochs() == {}
    with pytest.raises(ResultsError, match="can't be read"):
        Reader(CSV, str(tmp_path), tmp_path / "log").epochs()


def test_the_best_epoch_is_the_first_of_the_highest_and_a_bad_end_is_a_failure() -> None:
    assert best_epoch({}).reason == "no epoch has a fitness"
    assert best_epoch({0: {}}).fitness is None
    assert best_epoch({0: {"fitness": 0.2}, 1: {"fitness": 0.2}, 2: {}}).epoch == 0
    nan = best_epoch({0: {"fitness": 0.2}, 1: {"fitness": math.nan}})
    assert (nan.fitness, nan.reason) == (None, "the fitness was nan in epoch 1")
    assert best_epoch({0: {"fitness": math.nan}, 1: {"fitness": 0.3}}).fitness == 0.3
