"""What the user can mend: one clear line, exit code 1, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[..., str]
WriteSet = Callable[..., Path]

LIGHT = ("--model", "yolov5n", "--image-size", "64")
READERS = (["train"], ["evolve"], ["anchors", "fit"], ["anchors", "check"], ["data", "check"])
TRAINERS = (["train"], ["evolve"])


def light(command: list[str]) -> tuple[str, ...]:
    """Options that keep the work small where a command wrongly does it."""
    if command[0] == "data":
        return ()
    epochs = {"train": ("--epochs", "1"), "evolve": ("--epochs", "1", "--trials", "1")}
    return (*LIGHT, *epochs.get(command[0], ()))


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_missing_data_set_is_named(command: list[str], untouched: Refused) -> None:
    line = untouched(*command, "nowhere/data.yaml", *light(command))
    assert "nowhere/data.yaml" in line
    assert "no such file" in line


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_folder_without_images_is_no_data_set(
    command: list[str], untouched: Refused, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    assert "bare" in untouched(*command, tmp_path / "bare", *light(command))


@pytest.mark.parametrize("command", READERS[:-1], ids=" ".join)
def test_a_data_set_without_a_box_is_refused_as_empty(
    command: list[str], untouched: Refused, write_set: WriteSet
) -> None:
    data = write_set({"a": "", "b": ""})
    line = untouched(*command, data, *light(command))
    assert f"{data}: empty data set" in line


def test_check_refuses_an_empty_data_set_after_its_tables(untouched: Refused, write_set: WriteSet) -> None:
    assert "1 faults have to be mended" in untouched("data", "check", write_set({"a": ""}))


@pytest.mark.parametrize("command", READERS[:-1], ids=" ".join)
def test_a_class_out_of_range_is_named_with_file_and_line(
    command: list[str], untouched: Refused, write_set: WriteSet
) -> None:
    data = write_set({"a": "0 .5 .5 .2 .2", "b": "1 .5 .5 .2 .2\n7 .2 .2 .1 .1"})
    line = untouched(*command, data, *light(command))
    assert f"{data.parent / 'labels/train/b.txt'}:2: class out of range" in line


@pytest.mark.parametrize(
    "words",
    [["anchors", "fit"], ["train"], ["evolve", "--anchors", "fit"]],
    ids=["anchors", "train", "evolve"],
)
def test_fewer_shapes_than_anchors_can_not_be_fitted(
    words: list[str], untouched: Refused, write_set: WriteSet
) -> None:
    # Slivers, which the models' own anchors do not reach: so `train` has to fit too.
    data = write_set({"a": "0 .5 .5 .9 .05", "b": "1 .4 .5 .05 .9"})
    line = untouched(*words, data, *light(words))
    assert "need at least 9 distinct box shapes, but there are 2" in line


def test_an_unknown_gene_is_answered_with_the_nearest(untouched: Refused, tiny: Path) -> None:
    line = untouched("evolve", tiny, *light(["evolve"]), "--genes", "lr0,mozaic")
    assert line == "error: unknown gene 'mozaic': did you mean 'mosaic'?"


def test_an_unknown_gene_of_a_space_is_answered_with_the_nearest_and_the_file(
    untouched: Refused, tiny: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("momemtum: [0.6, 0.98]\n")
    line = untouched("evolve", tiny, *light(["evolve"]), "--space", space)
    assert str(space) in line
    assert "'momemtum': did you mean 'momentum'?" in line


@pytest.mark.parametrize("command", TRAINERS, ids=" ".join)
def test_an_unknown_hyperparameter_is_answered_with_the_nearest(
    command: list[str], untouched: Refused, tiny: Path, tmp_path: Path
) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("weight_decoy: 0.001\n")
    line = untouched(*command, tiny, *light(command), "--hyp", hyp)
    assert line == "error: unknown hyperparameter 'weight_decoy': did you mean 'weight_decay'?"


@pytest.mark.parametrize("command", TRAINERS, ids=" ".join)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("momentum: 2\n", "0 <= momentum <= 0.9999 must hold, but got 2"),
        ("lr0: fast\n", "lr0 must be a finite number, but got 'fast'"),
        ("lr0: .nan\n", "lr0 must be a finite number, but got nan"),
    ],
)
def test_a_hyperparameter_that_can_not_be_is_refused(
    command: list[str], text: str, said: str, untouched: Refused, tiny: Path, tmp_path: Path
) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text(text)
    assert untouched(*command, tiny, *light(command), "--hyp", hyp) == f"error: {said}"


def test_a_start_outside_its_bounds_is_refused_when_it_comes_from_hyp(
    untouched: Refused, tiny: Path, tmp_path: Path
) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("lr0: 0.5\n")  # a learning rate that trains, but beyond what is evolved
    line = untouched("evolve", tiny, *light(["evolve"]), "--hyp", hyp)
    assert "gene lr0: start must be in [low, high], but got start=0.5" in line


@pytest.mark.parametrize("row", ["[0.1, 0.5]", "{low: 0.1, high: 0.5, start: 0.6}"])
def test_a_start_outside_its_bounds_is_refused_when_it_comes_from_space(
    row: str, untouched: Refused, tiny: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(f"momentum: {row}\n")
    line = untouched("evolve", tiny, *light(["evolve"]), "--space", space)
    assert "gene momentum: start must be in [low, high], but got start=" in line


@pytest.mark.parametrize("flag", ["--hyp", "--space"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr0: [0.1\nmomentum: 3\n", "must be YAML"),
        ("- lr0\n- momentum\n", "must be a map of names, but got list"),
        ("", "must be a map of names, but got NoneType"),
        ("just words\n", "must be a map of names, but got str"),
        (b"lr0: \xff\xfe\n", "must be YAML"),
    ],
)
def test_broken_yaml_is_named_with_its_file(
    flag: str, text: str | bytes, said: str, untouched: Refused, tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    line = untouched("evolve", tiny, *light(["evolve"]), flag, path)
    assert f"{path}: " in line
    assert said in line


@pytest.mark.parametrize("flag", ["--hyp", "--space"])
def test_a_yaml_file_that_is_not_there_is_named(flag: str, untouched: Refused, tiny: Path) -> None:
    assert "absent.yaml" in untouched("evolve", tiny, *light(["evolve"]), flag, "absent.yaml")


@pytest.mark.parametrize("command", TRAINERS, ids=" ".join)
def test_an_output_folder_that_holds_something_is_left_alone(
    command: list[str], untouched: Refused, tiny: Path, workplace: Path
) -> None:
    (workplace / "mine").mkdir()
    (workplace / "mine" / "thesis.txt").write_text("years of work")
    line = untouched(*command, tiny, *light(command), "--epochs", "1", "--out", "mine")
    assert "mine" in line
    assert "choose another" in line


@pytest.mark.parametrize("command", [*TRAINERS, ["anchors", "fit"]], ids=" ".join)
def test_an_output_that_is_a_file_is_left_alone(
    command: list[str], untouched: Refused, tiny: Path, workplace: Path
) -> None:
    (workplace / "mine.yaml").write_text("years of work")
    assert "mine.yaml" in untouched(*command, tiny, *light(command), "--out", "mine.yaml")


def test_an_export_is_not_written_over_anything(
    untouched: Refused, finished_run: Path, workplace: Path
) -> None:
    (workplace / "production").mkdir()
    assert "production: the target must not exist" in untouched("export", finished_run, "--to", "production")


@pytest.mark.parametrize(
    "command", [["train"], ["evolve"], ["anchors", "fit"], ["anchors", "check"]], ids=" ".join
)
def test_an_unknown_model_is_answered_with_the_nearest(
    command: list[str], untouched: Refused, tiny: Path
) -> None:
    line = untouched(*command, tiny, *light(command), "--model", "yolov5nn")
    assert "unknown model 'yolov5nn'" in line
    assert "did you mean 'yolov5n'?" in line


def test_a_model_file_that_is_not_there_is_named(untouched: Refused, tiny: Path) -> None:
    assert "mine.yaml: there is no such file" in untouched("train", tiny, "--model", "mine.yaml")


@pytest.mark.parametrize("command", TRAINERS, ids=" ".join)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "0"], "epochs must be a whole number of at least 1, but got 0"),
        (["--seed", "-1"], "seed must be a whole number of at least 0, but got -1"),
        (["--optimizer", "sdg"], "adamw, adam, rmsprop, but got 'sdg'"),
        (["--device", "gpu"], "but got 'gpu'"),
        (["--anchors", "guess"], "but got 'guess'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_setting_that_can_not_be_is_refused(
    command: list[str], words: list[str], said: str, untouched: Refused, tiny: Path
) -> None:
    assert said in untouched(*command, tiny, *light(command), *words)


@pytest.mark.parametrize(
    "command",
    TRAINERS,
    ids=["train", "evolve"],
)
def test_a_batch_without_images_is_refused(command: list[str], untouched: Refused, tiny: Path) -> None:
    line = untouched(*command, tiny, *light(command), "--batch-size", "0")
    assert line == "error: batch_size must be a whole number of at least 1, but got 0"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trials", "0"], "trials >= 1 must hold, but got 0"),
        (["--concurrent", "0"], "concurrent >= 1 must hold, but got 0"),
        (["--cpus", "0"], "cpus > 0 must hold, but got 0"),
        (["--gpus", "1.5"], "gpus must be a fraction of one or a whole number, but got 1.5"),
        (["--retries", "-1"], "retries >= 0 must hold, but got -1"),
        (["--patience", "0"], "patience >= 1 must hold, but got 0"),
        (["--epoch-budget", "0"], "epoch_budget >= 1 must hold, but got 0"),
        (["--precise-bn", "-1"], "precise_bn must be a whole number of at least 0, but got -1"),
        (["--ema-share", "1"], "0 <= ema_share < 1 must hold, but got 1.0"),
    ],
)
def test_a_search_that_can_not_be_is_refused(
    words: list[str], said: str, untouched: Refused, tiny: Path
) -> None:
    assert untouched("evolve", tiny, *light(["evolve"]), *words) == f"error: {said}"


@pytest.mark.parametrize(
    "command", [["train"], ["evolve"], ["anchors", "fit"], ["anchors", "check"]], ids=" ".join
)
@pytest.mark.parametrize("size", ["0", "-64"])
def test_an_image_size_without_pixels_is_refused(
    command: list[str], size: str, untouched: Refused, tiny: Path
) -> None:
    line = untouched(*command, tiny, *light(command), "--image-size", size)
    assert f"but got {size}" in line


@pytest.mark.parametrize(
    "extra", [["--weights", "none.pt"], ["--device", "cuda:99"]], ids=lambda words: words[0]
)
def test_a_training_that_can_not_start_leaves_no_folder(
    extra: list[str], untouched: Refused, tiny: Path
) -> None:
    untouched("train", tiny, *LIGHT, "--epochs", "1", "--out", "new", *extra)


@pytest.mark.parametrize("command", ["val", "predict"])
def test_a_checkpoint_that_is_not_there_is_named(command: str, untouched: Refused, tiny: Path) -> None:
    images = tiny.parent / "images/val"
    assert "no checkpoint at none.pt" in untouched(command, "none.pt", tiny if command == "val" else images)


@pytest.mark.parametrize("command", ["val", "predict"])
def test_a_file_that_is_no_checkpoint_is_named(
    command: str, untouched: Refused, tiny: Path, workplace: Path
) -> None:
    (workplace / "notes.pt").write_text("not a checkpoint")
    line = untouched(command, "notes.pt", tiny if command == "val" else tiny.parent / "images/val")
    assert "notes.pt cannot be read as a checkpoint" in line


def test_a_split_that_is_not_there_is_named(untouched: Refused, tiny: Path, finished_run: Path) -> None:
    best = finished_run / "trials/0000/training/weights/best.pt"
    assert "test" in untouched("val", best, tiny, "--split", "test")


def test_images_that_are_not_there_are_named(untouched: Refused, finished_run: Path) -> None:
    best = finished_run / "trials/0000/training/weights/best.pt"
    assert "nowhere.png" in untouched("predict", best, "nowhere.png")


def test_resume_without_a_folder_is_refused(untouched: Refused, tiny: Path) -> None:
    assert "--resume needs --out" in untouched("train", tiny, *LIGHT, "--resume")


@pytest.mark.parametrize("plot", ["nowhere/plot.png", "plot.doc"])
def test_a_picture_that_can_not_be_written_is_refused_before_the_fit(
    plot: str, untouched: Refused, tiny: Path
) -> None:
    assert plot in untouched("anchors", "fit", tiny, *LIGHT, "--out", "a.yaml", "--plot", plot)


@pytest.mark.parametrize("command", ["status", "report", "export", "sync", "resume"])
def test_a_run_that_is_not_there_is_answered_with_those_that_are(
    command: str, untouched: Refused, workplace: Path
) -> None:
    (workplace / "runs" / "bccd").mkdir(parents=True)
    (workplace / "runs" / "bccd" / "journal.jsonl").write_text("")
    extra = ["--to", "production"] if command == "export" else []
    line = untouched(command, "bcdd", *extra)
    assert line == "error: bcdd is no run folder, it holds no journal.jsonl (runs are: bccd)"


@pytest.mark.parametrize("command", ["status", "report", "export"])
def test_a_damaged_journal_is_named_with_its_line(
    command: str, untouched: Refused, workplace: Path, finished_run: Path
) -> None:
    first, *rest = (finished_run / "journal.jsonl").read_text().splitlines()
    (workplace / "run").mkdir()
    (workplace / "run" / "journal.jsonl").write_text("\n".join([first, "{", *rest]) + "\n")
    extra = ["--to", "production"] if command == "export" else []
    assert "journal.jsonl:2: the line is damaged" in untouched(command, "run", *extra)


def test_a_budget_under_what_was_asked_is_refused(untouched: Refused, finished_run: Path) -> None:
    before = (finished_run / "journal.jsonl").read_bytes()
    line = untouched("resume", finished_run, "--trials", "1")
    assert line == "error: trials >= 2 must hold, since so many were asked, but got 1"
    assert (finished_run / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evlove", "digits"], "No such command 'evlove'. Did you mean 'evolve'? (see `beagle --help`)"),
        (["anchors"], "Missing command. (see `beagle anchors --help`)"),
        (["anchors", "fit"], "Missing argument 'data'. (see `beagle anchors fit --help`)"),
        (["anchors", "fiit", "digits"], "No such command 'fiit'"),
        (["train", "digits", "--epoch", "3"], "--epochs"),
        (["train", "digits", "--epochs", "three"], "'--epochs'"),
        (["train", "digits", "--epochs"], "--epochs"),
        (["train", "digits", "more"], "more"),
        (["export", "small"], "'--to'"),
        (["--verbos"], "--verbose"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_answered_with_the_right_ones(
    words: list[str], said: str, untouched: Refused
) -> None:
    assert said in untouched(*words)
