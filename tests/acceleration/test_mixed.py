"""Models partly in bytes: as many of their convolutions as the error that is asked for allows."""

from __future__ import annotations

import pickle

import pytest
import torch
from test_int8 import branches, error, pictures

import pointwise
from pointwise.acceleration import mixed
from pointwise.acceleration.quantisation_cost import QuantisationCost
from pointwise.acceleration.quantise import asked_for, chosen
from pointwise.acceleration.ranges import PERCENTILE, extent, watch
from pointwise.engine.cpu import dots

pytestmark = pytest.mark.skipif(dots.WHY_NOT is not None, reason=str(dots.WHY_NOT))


def made(**options):
    batches = pictures(4)
    return pointwise.accelerate(branches(), batches[0], calibration=batches, **options)


def in_bytes(model) -> int:
    model(pictures(1)[0])
    return sum(entry.what.startswith("int8") for entry in model.reports()[0].entries)


def test_results_keep_within_the_tolerance():
    whole = made(precision="int8")
    assert whole.cost.error > 0.001
    assert whole.cost.precision == "int8"
    before = in_bytes(whole)
    for tolerance in (0.75 * whole.cost.error, 0.5 * whole.cost.error):
        model = made(precision="mixed", tolerance=tolerance)
        assert 0 < model.cost.error <= tolerance
        assert 0 < in_bytes(model) < before
        before = in_bytes(model)
        assert "convolutions on 8 calibration samples" in str(model.cost)
        x = pictures(1)[0]
        with torch.no_grad():
            assert error(model(x), branches()(x)) < 2 * tolerance


def test_with_room_enough_all_are_in_bytes():
    whole, model = made(precision="int8"), made(precision="mixed", tolerance=0.5)
    x = pictures(1)[0]
    assert torch.equal(whole(x), model(x))
    assert model.cost == whole.cost


def test_the_tolerance_is_one_in_a_hundred_if_none_is_given():
    assert made(precision="mixed").cost.error <= 0.01


def test_no_room_at_all_is_said():
    with pytest.raises(ValueError, match=r"at most 1e-09: the least that was found is \d"):
        made(precision="mixed", tolerance=1e-9)


def test_it_can_be_saved():
    model, x = made(precision="mixed"), pictures(1)[0]
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(x), model(x))
    assert again.cost == model.cost


def test_the_best_come_first():
    """What bytes cost a convolution grows where a far number makes their steps coarse."""
    model = torch.nn.Sequential(*(torch.nn.Conv2d(8, 8, 3, bias=False) for _ in range(3))).eval()
    with torch.no_grad():
        model[1].weight[:, 0] *= 300  # so that the others of its input count for nothing
    x = torch.rand(2, 8, 16, 16)
    found = pointwise.accelerate(model, x)
    graph, tensors = found._graph, found._constants.tensors()
    nodes = chosen(graph, tensors)
    seen = watch(graph, list(tensors.values()), [[x]], asked_for(nodes))
    ordered = mixed.by_error(graph, tensors, nodes, seen, [x])
    assert len(ordered) == 3
    paths = [node.meta["path"] for node in ordered]
    assert set(paths) == {"0", "1", "2"}
    errors = mixed._Comparing(
        torch.fx.GraphModule({}, graph), nodes,
        {node: mixed.scale_of(one.low, one.high) for node, one in seen.items()},
    )  # fmt: skip
    with torch.no_grad():
        errors.run(*tensors.values(), x)
    assert [errors.errors[node] for node in ordered] == sorted(errors.errors.values())


def test_the_most_that_fit_are_found():
    class Model:
        def __init__(self, some):
            self.cost = QuantisationCost(1, float(sum(some)), None, None)

    costs = [0.0, 0.1, 0.2, 0.3, 0.4]
    for tolerance, most in ((0.05, 1), (0.31, 3), (0.59, 3), (0.61, 4), (1.01, 5), (9.0, 5)):
        found = mixed.within(tolerance, costs, Model, set)
        assert found.cost.error == pytest.approx(sum(costs[:most]))
    assert mixed.within(0.05, costs[1:], Model, set) == pytest.approx(0.1)


def test_a_percentile_cuts_off_what_lies_far():
    x = torch.cat([torch.linspace(0, 1, 9990), torch.full((10,), 100.0)])
    assert extent(x)[1] == 100
    assert extent(x, 99.8)[1] < 2
    assert extent(-x, 99.8)[0] > -2
    assert extent(x, 100) == (0, 100)
    assert PERCENTILE == 99.999


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "int8", "tolerance": 0.1}, "tolerance is a relative error above 0, for"),
        ({"precision": "mixed", "tolerance": 0.0}, "tolerance is a relative error above 0, for"),
        ({"precision": "mixed", "tolerance": float("nan")}, "tolerance is a relative error"),
        ({"precision": "int8", "percentile": 50}, "percentile is one from 90 to 100"),
        ({"percentile": 99.9, "precision": None}, "calibration is for a precision"),
    ],
)
def test_what_is_wrong_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        made(**given)
