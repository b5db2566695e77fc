"""Writes to parts of tensors give what PyTorch gives, and become the concatenations they are."""

from __future__ import annotations

import pytest
import torch
from both_ways import assert_as_eager, compiled, exported
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import Then
from torch import Tensor, fx, nn

from pointwise.acceleration import vocabulary
from pointwise.acceleration.functional import make_functional
from pointwise.acceleration.normalise import normalise
from pointwise.acceleration.rewrite import rewritten

WAYS = pytest.mark.parametrize("way", [exported, compiled])
aten = torch.ops.aten


def _empty(x: Tensor, channels: int = 12) -> Tensor:
    return x.new_empty(x.shape[0], channels, *x.shape[2:])


def _halves(x: Tensor) -> Tensor:
    y = _empty(x, 2 * x.shape[1])
    y[:, : x.shape[1]] = x.relu()
    y[:, x.shape[1] :] = x.abs()
    return y


def _later_wins(x: Tensor) -> Tensor:
    y = _empty(x)
    y[:, :8], y[:, 4:] = x[:, :8], 2 * x[:, :8]
    y[:, 3:6] = x[:, 6:9].relu()
    y[:, -1:] = x[:, :1]
    return y


def _partly(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 2:5] = x[:, :3]
    y[:, 7:-2] = x[:, :3].relu()
    return y + 1


def _read_between(x: Tensor) -> Tensor:
    y = _empty(x)
    y[:, :6] = x[:, :6]
    first = y[:, 2:4].relu()
    y[:, 2:8] = x[:, 2:8].abs()
    y[:, 8:] = x[:, 8:] + y[:, 2:4].mean() + first.mean()
    return y


def _seen_by_views(x: Tensor) -> Tensor:
    y = x.relu()
    left, middle = y[:, :6], y[:, 4:8].transpose(2, 3)
    left += 1
    y[:, 5] = 2
    middle.transpose(2, 3)[..., 0] = 3  # not followed: traced again
    return torch.cat((left, middle.transpose(2, 3), y), 1)


def _nested(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    part = y[:, 2:8]
    part[:, 1:3, 2:4] = x[:, :2, :2]
    part[:, -1, :, ::2] = 5.0
    part.mul_(2)
    return y.sub_(x)


def _of_itself(x: Tensor) -> Tensor:
    y = x + 1
    y[:, 1:5] = y[:, 2:6] * 2
    y[:, ::3] += y[:, 1::3]
    y[:, 6:9].copy_(y[:, :1])
    return y


def _stacked(x: Tensor) -> Tensor:
    y = x.new_zeros(3, *x.shape)
    y[0] = x
    for i in (1, 2):
        y[i] = y[i - 1].relu() - 0.5
    return y.sum(0)


def _flattened(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 2:] = x[:, :-2]
    return y.view(y.shape[0], -1).relu_() + 1


def _returned(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    return y[:, :3].add_(1)[:, 1:], y


def _whole_and_part(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two results in one memory."""
    y = x * 2
    part = y[:, :3]
    part += 1
    return y, part


CASES = {
    "halves": _halves,
    "later wins": _later_wins,
    "partly": _partly,
    "read between": _read_between,
    "seen by views": _seen_by_views,
    "nested": _nested,
    "of itself": _of_itself,
    "stacked": _stacked,
    "flattened": _flattened,
    "returned": _returned,
    "two results": _whole_and_part,
}


@WAYS
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name, way):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 1), Then(CASES[name])).eval()
    faster = way(model, torch.randn(2, 3, 9, 8))
    for shape in ((2, 3, 9, 8), (1, 3, 9, 8), (3, 3, 6, 7)):
        assert_as_eager(model, faster, torch.randn(shape))


class Ghost(nn.Module):
    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.first, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last, self.writes = nn.Conv2d(16, 5, 1), writes

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if not self.writes:
            return self.last(torch.cat((x, self.other(x)), 1))
        y = x.new_empty(x.shape[0], 16, *x.shape[2:])
        y[:, :8] = x
        y[:, 8:] = self.other(x)
        return self.last(y)


@WAYS
def test_halves_are_written_to_their_place(way):
    """What is filled by writes runs as what is joined does, call by call."""
    found = []
    for writes in (False, True):
        torch.manual_seed(0)
        model, x = Ghost(writes).eval(), torch.randn(2, 3, 9, 8)
        faster = way(model, x)
        assert_as_eager(model, faster, x)
        if way is exported:
            report = faster.reports()[-1]
            found.append(([entry.what for entry in report.fused], report.plain, report.arena))
    assert not found or found[0] == found[1]
    assert not any(plain for _, plain, _ in found)


# --- any writes at all ----------------------------------------------------------------------------

ENDS = st.one_of(st.none(), st.integers(-8, 8))
DIMS = st.integers(0, 3)
WRITES = st.tuples(DIMS, ENDS, ENDS, st.sampled_from((1, 1, 1, 2, 3)), st.integers(0, 4))
SIZES = (3, 7, 4, 5)


def _part(y: Tensor, dim: int, start: int | None, end: int | None, step: int) -> Tensor:
    return y[(slice(None),) * dim + (slice(start, end, step),)]


def _row(y: Tensor, dim: int, index: int) -> Tensor:
    return y.select(dim, index % y.shape[dim])


def _run(x: Tensor, base: str, writes: list, keep: int) -> Tensor:
    """Writes to parts of a tensor, and to parts of parts; some views are kept, and read at last."""
    y = x.relu() if base == "relu" else torch.zeros_like(x)
    kept: list[Tensor] = []
    for dim, start, end, step, way in writes:
        place = _part(y, dim, start, end, step)
        if len(kept) < keep:
            kept.append(place)
        if way == 0:
            place.copy_(_part(x, dim, start, end, step))
        elif way == 1:
            place += 1
        elif way == 2:
            _row(y, dim, start or 0).copy_(_row(x, dim, end or 0).abs())
        elif way == 3:
            _part(place, (dim + 1) % 4, end, start, 1).mul_(2)
        else:
            place.copy_(_part(y, dim, start, end, step).neg())
    return torch.cat([y.flatten(), *(part.flatten() for part in kept)])


class Runs(nn.Module):
    def __init__(self, *case) -> None:
        super().__init__()
        self.case = case

    def forward(self, x: Tensor) -> Tensor:
        return _run(x, *self.case)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(("relu", "zeros")), st.lists(WRITES, min_size=1, max_size=5),
       st.integers(0, 2))  # fmt: skip
def test_any_writes(base, writes, keep):
    """Followed here or in PyTorch, and as concatenations: the same bits."""
    model, x = Runs(base, writes, keep), torch.randn(SIZES)
    program = torch.export.export(model, (x,), strict=False)
    wanted = model(x)
    if make_functional(program.graph_module.graph):
        assert not any(_writes(node) for node in program.graph_module.graph.nodes)
        assert torch.equal(fx.GraphModule({}, program.graph_module.graph)(x)[0], wanted)
    else:
        program = torch.export.export(model, (x,), strict=False).run_decompositions({})
    graph = program.graph_module.graph
    normalise(graph)
    assert torch.equal(fx.GraphModule({}, graph)(x)[0], wanted)


def _writes(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


@pytest.mark.parametrize("dim", [1, 2])
def test_what_is_joined(dim):
    """A tensor that is filled by writes is a concatenation, of which nothing else is left."""

    def fill(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        _part(y, dim, 2, None, 1).copy_(_part(x.relu(), dim, 2, None, 1))
        _part(y, dim, 0, -2, 1).copy_(_part(x.abs(), dim, 0, -2, 1))
        return y

    program = torch.export.export(Then(fill), (torch.randn(SIZES),), strict=False)
    assert make_functional(program.graph_module.graph)
    graph = rewritten(program.graph_module, [])
    targets = [node.target for node in graph.nodes if node.op == "call_function"]
    assert (vocabulary.join if dim == 1 else aten.cat.default) in targets
    assert not {aten.slice_scatter.default, aten.empty_like.default} & set(targets)
