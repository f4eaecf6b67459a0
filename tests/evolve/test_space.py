"""Genes and spaces: what they refuse, and the two scales."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evolve import Gene, Space, SpaceError

finite = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def genes(draw: st.DrawFn) -> Gene:
    """Any gene that may be: linear, logarithmic or integer, with a start or without."""
    kind = draw(st.sampled_from(["linear", "log", "integer", "log integer"]))
    if "integer" in kind:
        low = draw(st.integers(1 if "log" in kind else -1000, 1000))
        high = low + draw(st.integers(1, 1000))
        start = draw(st.none() | st.integers(low, high))
    elif kind == "log":
        low = draw(st.floats(1e-9, 1e3))
        high = low * draw(st.floats(1.01, 1e9))
        start = draw(st.none() | st.floats(low, high))
    else:
        low, width = draw(finite), draw(st.floats(1e-3, 1e6))
        high = low + width
        start = draw(st.none() | st.floats(low, high))
    return Gene("g", low, high, start=start, log="log" in kind, integer="integer" in kind)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": 1, "high": 1}, r"gene lr0: low < high must hold, but got low=1, high=1"),
        ({"low": 2, "high": 1}, r"low < high must hold"),
        ({"low": math.nan, "high": 1}, r"low must be a finite number, but got nan"),
        ({"low": 0, "high": math.inf}, r"high must be a finite number, but got inf"),
        ({"low": 0, "high": True}, r"high must be a finite number, but got True"),
        ({"low": 0, "high": "1"}, r"high must be a finite number, but got '1'"),
        ({"low": -1e308, "high": 1e308}, r"high - low must be finite"),
        ({"low": 0, "high": 1, "start": 1.5}, r"lr0: start must be in \[low, high\], but got start=1.5"),
        ({"low": 0, "high": 1, "start": math.nan}, r"start must be a finite number, but got nan"),
        ({"low": -1, "high": 1, "log": True}, r"low must be >= 0 on a log scale, but got low=-1"),
        ({"low": 0.5, "high": 3, "integer": True}, r"low must be a whole number, but got 0.5"),
        ({"low": 0, "high": 3, "start": 1.5, "integer": True}, r"start must be a whole number"),
    ],
)
def test_a_gene_refuses_at_birth_what_cannot_be_searched(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Gene("lr0", **arguments)  # type: ignore[arg-type]  # some rows are of a wrong type on purpose


def test_a_gene_without_a_name_is_refused() -> None:
    with pytest.raises(SpaceError, match="name must be a word"):
        Gene(" ", 0, 1)


def test_a_log_gene_has_the_geometric_middle_and_a_linear_one_the_arithmetic() -> None:
    assert Gene("lr0", 1e-5, 1e-1, log=True).decode(0.5) == 1e-3
    assert Gene("lr0", 0.0, 0.2).decode(0.5) == 0.1


def test_a_gene_from_zero_is_linear_on_a_log_scale_too_and_can_leave_zero() -> None:
    gene = Gene("mixup", 0, 1, start=0, log=True)
    assert not gene.logarithmic
    assert gene.encode(0) == 0.0
    assert gene.decode(0.1) == 0.1


def test_a_decoded_value_has_five_significant_digits() -> None:
    gene = Gene("lr0", 1e-5, 1e-1, log=True)
    values = [gene.decode(u) for u in np.linspace(0, 1, 997)]
    assert all(value == float(f"{value:.5g}") for value in values)
    assert len(set(values)) == 997


def test_a_range_narrow_beside_its_values_keeps_more_digits() -> None:
    gene = Gene("size", 1000.0, 1000.1)
    assert len({gene.decode(u) for u in np.linspace(0, 1, 500)}) == 500


@given(genes(), st.floats(0, 1))
def test_decoding_stays_in_the_bounds_and_is_stable(gene: Gene, unit: float) -> None:
    value = gene.decode(unit)
    assert gene.low <= value <= gene.high
    assert isinstance(value, int) == gene.integer
    again = gene.decode(gene.encode(value))
    assert again == pytest.approx(value, rel=2e-5, abs=2e-5 * (gene.high - gene.low))


@given(genes())
def test_bounds_are_exact_both_ways(gene: Gene) -> None:
    assert (gene.decode(0.0), gene.decode(1.0)) == (gene.low, gene.high)
    assert (gene.encode(gene.low), gene.encode(gene.high)) == (0.0, 1.0)


@given(genes(), st.floats(0, 1), st.floats(0, 1))
def test_both_scales_keep_the_order(gene: Gene, first: float, second: float) -> None:
    assume(first <= second)
    assert gene.decode(first) <= gene.decode(second)


@given(st.integers(-500, 500), st.integers(1, 500), st.data())
def test_an_integer_gene_comes_back_exactly(low: int, width: int, data: st.DataObject) -> None:
    gene = Gene("n", low, low + width, integer=True)
    value = data.draw(st.integers(low, low + width))
    assert gene.decode(gene.encode(value)) == value


@pytest.mark.parametrize("unit", [-0.01, 1.01, math.nan])
def test_an_encoded_value_outside_the_unit_range_is_refused(unit: float) -> None:
    with pytest.raises(SpaceError, match=r"encoded value must be in \[0, 1\]"):
        Gene("lr0", 0, 1).decode(unit)


def test_a_value_outside_its_gene_is_refused_by_name() -> None:
    with pytest.raises(SpaceError, match=r"gene lr0: value must be in \[low, high\], but got 2 outside"):
        Gene("lr0", 0, 1).encode(2)


@given(genes())
def test_a_gene_survives_json(gene: Gene) -> None:
    assert Gene.from_dict(json.loads(json.dumps(gene.to_dict()))) == gene


def space() -> Space:
    return Space(
        [
            Gene("lr0", 1e-5, 1e-1, start=0.01, log=True),
            Gene("mosaic", 0, 1, start=1),
            Gene("anchors", 2, 10, start=3, integer=True),
            Gene("free", 0, 4),
        ]
    )


def test_the_start_configuration_has_each_gene_in_order_with_its_type() -> None:
    assert space().start == {"lr0": 0.01, "mosaic": 1.0, "anchors": 3, "free": 2.0}
    assert list(space().start) == list(space().names)
    assert isinstance(space().start["anchors"], int)


def test_a_space_survives_json() -> None:
    assert Space.from_dict(json.loads(json.dumps(space().to_dict()))) == space()


def test_a_configuration_survives_the_way_through_the_encoded_space() -> None:
    config = {"lr0": 0.00123, "mosaic": 0.25, "anchors": 7, "free": 3.3}
    assert space().decode(space().encode(config)) == config


def test_two_genes_of_one_name_are_refused() -> None:
    with pytest.raises(SpaceError, match="must have different names, but got 'lr0' twice"):
        Space([Gene("lr0", 0, 1), Gene("lr0", 0, 2)])


def test_a_space_without_genes_is_refused() -> None:
    with pytest.raises(SpaceError, match="must have a gene"):
        Space([])


def test_an_unknown_gene_is_answered_with_the_nearest() -> None:
    with pytest.raises(SpaceError, match=r"gene 'mosiac' is unknown; did you mean 'mosaic'\?"):
        space()["mosiac"]
    with pytest.raises(SpaceError, match=r"gene 'lr1' is unknown; did you mean 'lr0'\?"):
        space().encode({**space().start, "lr1": 0.1})
    with pytest.raises(SpaceError, match="gene 'zzz' is unknown; there are lr0, mosaic, anchors, free"):
        space()["zzz"]


def test_a_missing_gene_is_named() -> None:
    with pytest.raises(SpaceError, match="must have every gene, but mosaic, free is missing"):
        space().check({"lr0": 0.01, "anchors": 3})


def test_an_unknown_key_of_a_gene_is_answered_with_the_nearest() -> None:
    with pytest.raises(SpaceError, match=r"gene lr0: key 'hihg' is unknown; did you mean 'high'\?"):
        Gene.from_dict({"name": "lr0", "low": 0, "hihg": 1})
    with pytest.raises(SpaceError, match="high must be given"):
        Gene.from_dict({"name": "lr0", "low": 0})
    with pytest.raises(SpaceError, match="must have the one key genes"):
        Space.from_dict({"gene": []})


@pytest.mark.parametrize("point", [[], [0.5] * 3, [[0.5] * 4]])
def test_a_point_of_another_shape_is_refused(point: list[object]) -> None:
    with pytest.raises(SpaceError, match=r"must have the shape \(4,\)"):
        space().decode(point)  # type: ignore[arg-type]  # shapes are checked when it runs


def test_only_a_space_of_whole_numbers_can_be_counted() -> None:
    assert space().cells == math.inf
    assert Space([Gene("a", 1, 3, integer=True), Gene("b", 0, 1, integer=True)]).cells == 6


# --- choices and conditions ----------------------------------------------------------------------------------------

MIXED = Space(
    [
        Gene("optimizer", choices=("sgd", "adamw", "adam"), start="adamw"),
        Gene("momentum", 0.6, 0.98, start=0.9, when=("optimizer", ("sgd",))),
        Gene("dampening", 0, 1, start=0, when=("momentum", (0.6,))),
        Gene("batch", choices=(8, 16)),
    ]
)


def test_choices_have_equal_bins_and_read_back() -> None:
    gene = MIXED["optimizer"]
    assert [gene.decode(unit) for unit in (0.0, 0.32, 0.34, 0.67, 1.0)] == [
        "sgd",
        "sgd",
        "adamw",
        "adam",
        "adam",
    ]
    assert all(gene.decode(gene.encode(choice)) == choice for choice in gene.choices)
    assert MIXED["batch"].first == 8


def test_a_gene_whose_condition_fails_rests_at_its_start_and_so_does_what_hangs_on_it() -> None:
    resting = MIXED.decode([0.5, 0.1, 0.7, 0.9])
    assert (resting["momentum"], resting["dampening"], resting["batch"]) == (0.9, 0.0, 16)
    assert MIXED.decode([0.1, 0.0, 0.7, 0.9])["dampening"] == 0.7


def test_all_choices_are_equally_far_apart_in_what_a_model_sees() -> None:
    points = np.array([MIXED.encode({**MIXED.start, "optimizer": each}) for each in ("sgd", "adamw", "adam")])
    seen = MIXED.features(points)
    assert seen.shape == (3, 3 + 1 + 1 + 2)
    gaps = [np.linalg.norm(seen[i] - seen[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert gaps == pytest.approx([gaps[0]] * 3)
    assert MIXED.features(np.zeros((0, 4))).shape == (0, 7)


def test_a_space_with_choices_survives_json() -> None:
    assert Space.from_dict(json.loads(json.dumps(MIXED.to_dict()))) == MIXED


@pytest.mark.parametrize(
    ("gene", "message"),
    [
        ({"name": "a", "choices": ["x"]}, "choices must be two or more different"),
        ({"name": "a", "choices": ["x", "x"]}, "choices must be two or more different"),
        ({"name": "a", "choices": "xy"}, "choices must be a list"),
        ({"name": "a", "choices": ["x", "y"], "start": "z"}, "value must be one of x, y, but got 'z'"),
        ({"name": "a", "choices": ["x", "y"], "log": True}, "log and integer are of a range"),
    ],
)
def test_choices_that_cannot_be_are_refused(gene: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Gene.from_dict(gene)


def test_a_search_over_choices_and_conditions_finds_the_choice_that_pays() -> None:
    from evolve import GeneticSearch

    search = GeneticSearch(MIXED, seed=1)
    for _ in range(40):
        trial = search.ask()
        momentum = float(trial.config["momentum"])
        search.tell(
            trial.id,
            (trial.config["optimizer"] == "sgd") - abs(momentum - 0.7) - float(trial.config["dampening"]),
        )
    best = search.best()
    assert best is not None
    assert best.trial.config["optimizer"] == "sgd"
    assert best.fitness > 0.9
