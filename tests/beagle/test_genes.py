"""Which hyperparameters are evolved, and how a user says otherwise."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from beagle.folders import CommandError
from beagle.genes import GENES, OPTIONAL_GENES, build_space, load_hyp, load_yaml_map
from evolve import Space, SpaceError
from trainer.config import RANGES, Hyperparameters, TrainError

KNOWN = {**GENES, **OPTIONAL_GENES}
DEFAULTS = Hyperparameters()


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_every_gene_is_a_hyperparameter_within_the_range_that_a_training_accepts() -> None:
    for name, (low, high, _log, _integer) in KNOWN.items():
        assert RANGES[name][0] <= low < high <= RANGES[name][1], name


def test_the_usual_genes_are_evolved_when_none_is_named() -> None:
    space = build_space((), None, DEFAULTS)
    assert space.names == tuple(GENES)
    assert space.start == {name: getattr(DEFAULTS, name) for name in GENES}


@given(st.lists(st.sampled_from(sorted(KNOWN)), min_size=1, unique=True))
def test_named_genes_keep_their_order_and_start_at_the_hyperparameters(names: list[str]) -> None:
    space = build_space(tuple(names), None, DEFAULTS)
    assert space.names == tuple(names)
    for name in names:
        assert (space[name].low, space[name].high) == KNOWN[name][:2]
        assert space[name].log == KNOWN[name][2]
        if name != "anchors":
            assert space.start[name] == getattr(DEFAULTS, name)


@given(st.data())
def test_whatever_a_space_decodes_is_accepted_by_a_training(data: st.DataObject) -> None:
    space = build_space(tuple(KNOWN), None, DEFAULTS)
    unit = data.draw(st.lists(st.floats(0, 1), min_size=len(space), max_size=len(space)))
    config = space.decode(unit)
    assert Hyperparameters.from_dict(config).to_dict() | config == DEFAULTS.to_dict() | config


def test_genes_start_where_the_user_s_hyperparameters_are() -> None:
    space = build_space(("lr0", "mosaic"), None, Hyperparameters(lr0=0.02, mosaic=0.3))
    assert space.start == {"lr0": 0.02, "mosaic": 0.3}


def test_the_gene_of_anchors_per_level_is_whole_and_starts_at_three() -> None:
    space = build_space(("anchors",), None, DEFAULTS)
    assert space["anchors"].integer
    assert space.start == {"anchors": 3}
    assert {type(space.decode([unit])["anchors"]) for unit in (0, 0.4, 1)} == {int}


def test_the_gene_of_anchors_per_level_starts_where_the_user_says() -> None:
    assert build_space(("anchors",), None, Hyperparameters(anchors=5)).start == {"anchors": 5}


@pytest.mark.parametrize("name", ["mozaic", "epochs", ""])
def test_a_gene_that_is_not_evolved_is_refused(name: str) -> None:
    with pytest.raises(TrainError, match="unknown gene"):
        build_space(("lr0", name), None, DEFAULTS)


def test_a_gene_named_twice_is_refused() -> None:
    with pytest.raises(SpaceError, match="different names, but got 'lr0' twice"):
        build_space(("lr0", "lr0"), None, DEFAULTS)


def test_a_space_file_may_give_bounds_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "space.yaml", {"lr0": [0.001, 0.05], "degrees": [0, 10]})
    space = build_space((), path, DEFAULTS)
    assert space.names == ("lr0", "degrees")
    assert (space["lr0"].low, space["lr0"].high, space["lr0"].log) == (0.001, 0.05, True)
    assert (space["degrees"].low, space["degrees"].high, space["degrees"].log) == (0, 10, False)
    assert space.start == {"lr0": 0.01, "degrees": 0}


def test_a_space_file_may_say_everything_of_a_gene(tmp_path: Path) -> None:
    row = {"low": 1, "high": 9, "start": 2, "log": True, "integer": True}
    gene = build_space((), write(tmp_path / "space.yaml", {"box": row}), DEFAULTS)["box"]
    assert gene.to_dict() == {"name": "box", **row}


def test_a_space_file_may_leave_bounds_as_they_are(tmp_path: Path) -> None:
    gene = build_space((), write(tmp_path / "space.yaml", {"momentum": {"start": 0.9}}), DEFAULTS)["momentum"]
    assert (gene.low, gene.high, gene.start) == (*GENES["momentum"][:2], 0.9)


def test_a_space_file_may_name_what_is_not_usually_evolved(tmp_path: Path) -> None:
    space = build_space((), write(tmp_path / "space.yaml", {"copy_paste": [0, 0.5]}), DEFAULTS)
    assert space.start == {"copy_paste": 0.0}


def test_a_space_file_stands_above_named_genes(tmp_path: Path) -> None:
    path = write(tmp_path / "space.yaml", {"box": [0.02, 0.1]})
    assert build_space(("lr0",), path, DEFAULTS).names == ("box",)


def test_a_number_that_yaml_reads_as_text_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("lr0: [1e-4, 1e-1]\n")  # YAML 1.1 asks for a dot: these are words to it
    assert build_space((), path, DEFAULTS)["lr0"].low == 0.0001


def test_a_bound_at_zero_has_no_logarithm(tmp_path: Path) -> None:
    gene = build_space((), write(tmp_path / "space.yaml", {"lr0": [0, 0.1]}), DEFAULTS)["lr0"]
    assert not gene.log


def test_a_space_file_may_name_the_gene_of_anchors_per_level(tmp_path: Path) -> None:
    space = build_space((), write(tmp_path / "space.yaml", {"anchors": [2, 5]}), DEFAULTS)
    assert space["anchors"].integer
    assert space.start == {"anchors": 3}


@pytest.mark.parametrize(
    ("row", "error", "match"),
    [
        ([0.1], CommandError, r"gene lr0 must be \[low, high\] or a map"),
        ("wide", CommandError, r"gene lr0 must be \[low, high\] or a map"),
        (None, CommandError, r"gene lr0 must be \[low, high\] or a map"),
        (["a", 1], CommandError, "gene lr0: low must be a number, but got 'a'"),
        ({"low": 0.001, "hihg": 0.1}, TrainError, "'hihg': did you mean 'high'"),
        ([0.05, 0.001], SpaceError, "low < high must hold"),
        ([0.001, 0.001], SpaceError, "low < high must hold"),
        ([0.02, 0.1], SpaceError, r"start must be in \[low, high\], but got start=0.01"),
        ([-1, 1], CommandError, r"bounds must lie in \[0, 1e\+06\], but got \[-1, 1\]"),
        ([float("nan"), 1], SpaceError, "low must be a finite number"),
    ],
)
def test_a_row_that_can_not_be_is_refused(
    row: object, error: type[Exception], match: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=match):
        build_space((), write(tmp_path / "space.yaml", {"lr0": row}), DEFAULTS)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [("mosaic", [0, 1.5]), ("momentum", [0.5, 1.0]), ("perspective", [0, 0.02]), ("anchors", [0, 20])],
)
def test_bounds_beyond_what_a_training_accepts_are_refused(
    name: str, bounds: list[float], tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match=f"gene {name}: bounds must lie in "):
        build_space((), write(tmp_path / "space.yaml", {name: bounds}), DEFAULTS)


def test_a_fraction_of_an_anchor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="must be a whole number"):
        build_space((), write(tmp_path / "space.yaml", {"anchors": [2.5, 5]}), DEFAULTS)


def test_a_space_file_without_a_gene_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="a space must have a gene"):
        build_space((), write(tmp_path / "space.yaml", {}), DEFAULTS)


def test_a_space_survives_the_journal(tmp_path: Path) -> None:
    space = build_space(("lr0", "anchors", "mixup"), None, DEFAULTS)
    assert Space.from_dict(space.to_dict()) == space


def test_hyperparameters_of_a_file_stand_above_the_defaults(tmp_path: Path) -> None:
    hyp = load_hyp(write(tmp_path / "hyp.yaml", {"lr0": 0.02, "fliplr": 0}))
    assert hyp == Hyperparameters(lr0=0.02, fliplr=0.0)
    assert load_hyp(None) == DEFAULTS


def test_all_hyperparameters_survive_a_file(tmp_path: Path) -> None:
    hyp = Hyperparameters(lr0=1e-05, anchors=4, mixup=0.25)
    assert load_hyp(write(tmp_path / "hyp.yaml", hyp.to_dict())) == hyp


def test_keys_of_a_yaml_map_are_words(tmp_path: Path) -> None:
    assert load_yaml_map(write(tmp_path / "a.yaml", {1: 2, "b": 3}), "it") == {"1": 2, "b": 3}


def test_a_folder_is_no_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"it can't be read \(Is a directory\)"):
        load_yaml_map(tmp_path, "it")
