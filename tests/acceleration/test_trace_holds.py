"""A traced model answers as the model does, or says that it was traced with something else."""

from __future__ import annotations

import random
import warnings
from typing import NamedTuple

import pytest
import torch
from both_ways import assert_as_eager, assert_same, compiled, exported
from torch import nn

import pointwise
from pointwise.acceleration import Accelerated, accelerate
from pointwise.acceleration.compiled import Compiled


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 4, 1)


class ManyKinds(Conv):
    """Its inputs besides images are what Python has."""

    def forward(self, x, scale=1.0, flag=False, mode="a", times=1, mask=None):
        y = self.conv(x) * scale * times
        y = y + 10 if flag else y
        y = y + 100 if mode == "a" else y
        return y if mask is None else y * mask


IMAGES = torch.rand(2, 3, 8, 8)
MASK = torch.rand(2, 1, 8, 8)
EXAMPLE = (IMAGES, 1.0, False, "a", 1)


@pytest.fixture(scope="module")
def many_kinds():
    return accelerate(ManyKinds().eval(), EXAMPLE)


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (1, 2.0, r"scale must be 1\.0, as in the example .* got 2\.0 \(float\)"),
        (1, 1, r"scale must be 1\.0, .* got 1 \(int\)"),
        (1, float("nan"), r"scale must be 1\.0, .* got nan"),
        (1, torch.tensor(1.0), r"scale must be 1\.0, .* got a float32 tensor of shape \(\)"),
        (2, True, r"flag must be False, .* got True"),
        (2, 0, r"flag must be False, .* got 0 \(int\)"),
        (3, "b", r"mode must be 'a', .* got 'b'"),
        (4, 3, r"times must be 1, .* got 3 \(int\)"),
        (4, True, r"times must be 1, .* got True"),
        (0, (IMAGES * 255).byte(), r"x must be a float32 tensor of 4 dimensions on cpu, .* uint8"),
        (0, IMAGES.double(), r"x must be a float32 .* got a float64 tensor of shape"),
        (0, IMAGES[0], r"x must be a float32 tensor of 4 dimensions .* of shape \(3, 8, 8\)"),
        (0, IMAGES.to("meta"), r"x must be .* on cpu, .* on meta"),
        (0, IMAGES.to_sparse(), r"x must be .* got a sparse_coo float32 tensor"),
        (0, None, r"x must be a float32 tensor .* got None"),
        (0, IMAGES.numpy(), r"x must be a float32 tensor .* \(ndarray\). Accelerate it again"),
    ],
)
def test_inputs_that_it_was_not_traced_for(many_kinds, place, value, match):
    many_kinds(*EXAMPLE)
    with pytest.raises(ValueError, match=match):
        many_kinds(*EXAMPLE[:place], value, *EXAMPLE[place + 1 :])


def test_values_that_are_no_numbers_are_themselves():
    model = ManyKinds().eval()
    fast = accelerate(model, (IMAGES, float("nan")))
    for _ in range(2):
        assert_same(fast(IMAGES, float("nan")), model(IMAGES, float("nan")))
    fast = accelerate(model, (IMAGES, 0.0))
    with pytest.raises(ValueError, match=r"scale must be 0\.0, .* got -0\.0"):
        fast(IMAGES, -0.0)


def test_none_is_not_a_mask_and_a_mask_is_not_none():
    model = ManyKinds().eval()
    without, with_ = accelerate(model, (*EXAMPLE, None)), accelerate(model, (*EXAMPLE, MASK))
    assert_same(with_(*EXAMPLE, MASK), model(*EXAMPLE, MASK))
    with pytest.raises(ValueError, match=r"mask must be None, as in .* got a float32 tensor"):
        without(*EXAMPLE, MASK)
    with pytest.raises(ValueError, match=r"mask must be a float32 tensor .* got None"):
        with_(*EXAMPLE, None)
    # It spreads over the channels: a size of 1 is one that the trace counts on.
    with pytest.raises(ValueError, match=r"asks for sizes\[5\]\[1\] == 1 \(.* those of mask\)"):
        with_(*EXAMPLE, MASK.expand(-1, 4, -1, -1))


def test_what_was_traced_is_saved_too(many_kinds, tmp_path):
    path = tmp_path / "fast.pt"
    torch.save(many_kinds, path)
    again = torch.load(path, weights_only=False)
    assert_same(again(*EXAMPLE), ManyKinds()(*EXAMPLE))
    with pytest.raises(ValueError, match=r"scale must be 1\.0"):
        again(IMAGES, 2.0, *EXAMPLE[2:])


class Difference(Conv):
    def forward(self, x, y):
        return self.conv(x) - y.mean()


def test_an_example_with_the_same_tensor_twice_has_two_inputs():
    model = Difference().eval()
    for pair in ((IMAGES, IMAGES), (IMAGES, IMAGES[:])):
        assert_as_eager(model, accelerate(model, pair), IMAGES, torch.rand(2, 3, 8, 8))


class AskedForOne(Conv):
    """A batch of one is something else to it; torch.export does not say that it looked."""

    def forward(self, x):
        y = self.conv(x).mean((2, 3))
        return y + 100 if x.shape[0] == 1 else y


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches_of_one_that_are_something_else(batch):
    model = AskedForOne().eval()
    fast = accelerate(model, torch.rand(batch, 3, 8, 8))
    assert_as_eager(model, fast, torch.rand(batch, 3, 8, 8))
    with pytest.raises(ValueError, match=r"asks for sizes\[0\]\[0\] (!= 1|== 1)"):
        fast(torch.rand(2 if batch == 1 else 1, 3, 8, 8))


class Squeezed(Conv):
    def forward(self, x):
        return self.conv(x).mean((2, 3)).squeeze()


@pytest.mark.parametrize("batch", [1, 2])
def test_batches_of_one_that_lose_a_dimension(batch):
    model = Squeezed().eval()
    fast = accelerate(model, torch.rand(batch, 3, 8, 8))
    for images in (1, 2, 5):
        x = torch.rand(images, 3, 8, 8)
        try:
            found = fast(x)
        except ValueError as error:  # refused, and not answered in another shape
            found, said = None, str(error)
        if found is not None:
            assert_as_eager(model, fast, x)
            continue
        assert (images == 1) != (batch == 1)
        assert "asks for sizes[0][0]" in said


class AsksForOrder(Conv):
    def forward(self, x):
        return self.conv(x) + (1 if x.is_contiguous() else 2)


class AsksForStrides(Conv):
    def forward(self, x):
        return self.conv(x) * x.stride(1)


class AsksForOrderOfPoints(Conv):
    def forward(self, x):
        return x * (2 if x.is_contiguous() else 3)


class AsksForPlace(Conv):
    def forward(self, x):
        return self.conv(x) + x.storage_offset()


class AsksForGradients(Conv):
    def forward(self, x):
        return self.conv(x) * (2 if x.requires_grad else 3)


class Same(Conv):
    def forward(self, x, y):
        return self.conv(x) * (2 if x is y else 3)


class Counts(Conv):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.conv(x) * (self.calls > 3)


class Collects(Conv):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x):
        self.seen.append(1)
        return self.conv(x) + len(self.seen)


class PlaysDice(Conv):
    def forward(self, x):
        return self.conv(x) * random.random()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (AsksForOrder, "depends on how its inputs lie in memory"),
        (Counts, "changes its own calls as it runs"),
        (Collects, "other results|something else each time|changes its own seen"),
        (PlaysDice, "other results|something else each time"),
    ],
)
def test_what_a_trace_cannot_hold_is_compiled_instead(kind, why):
    model = kind().eval()
    with pytest.warns(UserWarning, match=f"compiled in pieces with torch.compile .*({why})"):
        fast = accelerate(model, IMAGES)
    assert isinstance(fast, Compiled)
    if kind is AsksForOrder:
        for order in (torch.contiguous_format, torch.channels_last):
            assert_as_eager(model, fast, IMAGES.contiguous(memory_format=order))


@pytest.mark.parametrize(
    ("kind", "example", "other", "why"),
    [
        (AsksForOrderOfPoints, IMAGES[0], IMAGES[0].mT, "how its inputs lie in memory"),
        (AsksForPlace, IMAGES, IMAGES[1:], "how its inputs lie in memory, with gaps"),
        (AsksForGradients, IMAGES, IMAGES.clone().requires_grad_(), "or take gradients"),
    ],
)
def test_what_a_model_may_ask_of_an_input_is_tried(kind, example, other, why):
    model = kind().eval()
    with pytest.warns(UserWarning, match=f"compiled in pieces with torch.compile .*{why}"):
        fast = accelerate(model, example)
    with torch.no_grad():
        for x in (example, other, example):
            assert_same(fast(x), model(x))


@pytest.mark.parametrize("way", [exported, compiled])
def test_strides_are_those_of_the_inputs(way):
    model = AsksForStrides().eval()
    fast = way(model, IMAGES)
    for x in (IMAGES, IMAGES[:, :, ::2], IMAGES[:, :, :, ::2], IMAGES.mT[:, :, :6]):
        with torch.no_grad():  # copies of inputs would lie otherwise
            assert_same(fast(x), model(x))


def test_a_model_that_asks_whether_inputs_are_the_same():
    model = Same().eval()
    with pytest.warns(UserWarning, match="it asks whether its inputs are the same tensor"):
        fast = accelerate(model, (IMAGES, IMAGES))
    with torch.no_grad():
        for pair in ((IMAGES, IMAGES), (IMAGES, IMAGES.clone())):
            assert_same(fast(*pair), model(*pair))


class Remembers(Conv):
    """Keeps what it makes of sizes, as detectors do with anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, list[torch.Tensor]] = {}

    def forward(self, x):
        if not hasattr(self, "rows") or self.rows.shape[0] != x.shape[2]:
            self.rows = torch.arange(x.shape[2]).float()
        if "columns" not in self.known or self.known["columns"][0].shape[0] != x.shape[3]:
            self.known["columns"] = [torch.arange(x.shape[3]).float()]
        return self.conv(x) + self.rows[:, None] + self.known["columns"][0]


def test_tracing_leaves_a_model_as_it_was():
    model = Remembers().eval()
    fast = accelerate(model, IMAGES)
    assert type(model.rows) is type(model.known["columns"][0]) is torch.Tensor
    for sizes in ((2, 3, 8, 8), (1, 3, 10, 12)):
        assert_as_eager(model, fast, torch.rand(sizes))


class Pair(NamedTuple):
    image: torch.Tensor
    mask: torch.Tensor


class OfPairs(Conv):
    def forward(self, pair):
        return Pair(self.conv(pair.image) * pair.mask, pair.mask)


def test_named_tuples_are_inputs():
    model = OfPairs().eval()
    fast = accelerate(model, (Pair(IMAGES, MASK),))
    assert isinstance(fast, Accelerated)
    assert_as_eager(model, fast, Pair(torch.rand(3, 3, 6, 9), torch.rand(3, 1, 6, 9)))
    with pytest.raises(
        ValueError, match=r"must be arranged as in the example, TreeSpec.*, got T.*$"
    ):
        fast((IMAGES, MASK))


class HandsOutConstants(Conv):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.rand(50, 4))
        self.table = torch.rand(50)

    def forward(self, x):
        n = x.shape[3]
        return (self.conv(x), self.p * 2, self.p, self.p[:n], (self.p * 3)[:n], self.p.view(-1),
                self.table, self.p.mT.expand(2, 4, 50), [self.table[:n].view(n, 1)])  # fmt: skip


@pytest.mark.parametrize("plainly", [False, True])
def test_what_callers_write_into_results_changes_nothing(plainly):
    model = HandsOutConstants().eval()
    fast = accelerate(model, IMAGES)
    with torch.no_grad():
        wanted = torch.utils._pytree.tree_map(torch.clone, model(IMAGES))
    for _ in range(2):
        with torch.no_grad():
            given = fast(IMAGES)
            if plainly:
                given = torch.utils._pytree.tree_unflatten(fast.run_plain([IMAGES]), fast.out_spec)
        assert_same(given, wanted)
        for part in torch.utils._pytree.tree_leaves(given):
            part.as_strided(part.shape[:1], part.stride()[:1]).fill_(7)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.Softmax(1),
    ).eval()  # fmt: skip


def test_autocast_is_seen():
    model = network()
    before = accelerate(model, IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        under = accelerate(model, IMAGES)
    for fast in (before, under):
        assert_as_eager(model, fast, IMAGES)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            given, wanted = fast(IMAGES), model(IMAGES)
        assert given.dtype == wanted.dtype
        torch.testing.assert_close(given, wanted, rtol=0.02, atol=0.02)
        assert_as_eager(model, fast, IMAGES)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert accelerate(model[:4].eval(), IMAGES)(IMAGES).dtype == torch.bfloat16


def test_tracers_and_transforms_see_what_it_does():
    model = network()
    fast, other = accelerate(model, IMAGES), torch.rand(2, 3, 8, 8)
    traced = torch.jit.trace(fast, (IMAGES,), check_trace=False)
    assert_same(traced(other), model(other).detach())
    wanted = torch.func.grad(lambda x: model(x)[:, 0].sum())(other)
    torch.testing.assert_close(torch.func.grad(lambda x: fast(x)[:, 0].sum())(other), wanted)
    given, wanted = (torch.func.jvp(net, (IMAGES,), (other,))[1] for net in (fast, model))
    torch.testing.assert_close(given, wanted)
    torch._dynamo.reset()
    with torch.no_grad():
        assert_same(torch.compile(nn.Sequential(fast, nn.ReLU()))(other), model(other))


def test_hooks_that_only_collect_are_mentioned():
    model = network()
    seen: list[torch.Tensor] = []
    model[2].register_forward_hook(lambda module, args, out: seen.append(out))
    with pytest.warns(UserWarning, match="hooks on 2 run while the model is traced, and not again"):
        accelerate(model, IMAGES)
    own = nn.utils.spectral_norm(nn.Conv2d(3, 4, 1)).eval()  # a hook of PyTorch's: makes the weight
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = accelerate(own, IMAGES)
    assert_same(fast(IMAGES), own(IMAGES).detach())


def test_what_other_code_asks_of_a_module():
    model = network()
    fast = accelerate(model, IMAGES)
    like = next(fast.parameters())
    assert (like.dtype, like.device.type, like.requires_grad) == (torch.float32, "cpu", False)
    wanted = fast(IMAGES)
    assert fast.float() is fast.cpu() is fast.to(memory_format=torch.channels_last) is fast
    assert fast.eval() is fast.requires_grad_(False) is fast
    for convert in (fast.double, fast.half, fast.bfloat16, lambda: fast.to("meta")):
        with pytest.raises(ValueError, match=r"stays in torch\.float32 on cpu as it was made, and"):
            convert()
    with pytest.raises(ValueError, match=r"cannot become torch\.float64 on cpu; convert the model"):
        nn.Sequential(fast).to(torch.float64)
    with pytest.raises(ValueError, match="weights are folded and cannot be trained"):
        fast.requires_grad_()
    with pytest.warns(UserWarning, match="for inference, and stays in eval mode"):
        nn.Sequential(fast).train()
    assert not fast.training
    assert torch.equal(fast(IMAGES), wanted)
    double = accelerate(model.double(), IMAGES.double())
    assert next(double.parameters()).dtype == torch.float64


def test_its_weights_can_be_saved_and_loaded_by_themselves():
    one, other = network(), network()
    for part in other.parameters():
        part.data.add_(0.1)
    fast, second = accelerate(one, IMAGES), accelerate(other, IMAGES)
    assert not torch.allclose(fast(IMAGES), second(IMAGES))
    second.load_state_dict(fast.state_dict())
    assert torch.equal(second(IMAGES), fast(IMAGES))
    holder = nn.ModuleList([second])
    with pytest.raises(RuntimeError, match="not its own folded weights; load them into the model"):
        fast.load_state_dict(one.state_dict())
    with pytest.raises(RuntimeError, match="not its own folded weights"):
        holder.load_state_dict({f"0.{name}": part for name, part in one.state_dict().items()})
    assert isinstance(second, Accelerated)


def test_sizes_that_are_fixed_without_need_are_open():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 1, stride=2), nn.Conv2d(16, 16, 3, 2, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip
    faster = pointwise.accelerate(model, torch.rand(2, 3, 32, 40))
    for size in ((1, 1), (2, 31), (5, 3), (64, 64)):
        x = torch.rand(1, 3, *size)
        assert_same(faster(x), model(x).detach())


def test_sizes_that_a_model_asks_for_stay_fixed():
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=4, padding=1)

        def forward(self, x):
            found = self.conv(x)
            return found * 2 if found.shape[2] == 1 else found

    model = Asks().eval()
    faster = pointwise.accelerate(model, torch.rand(2, 3, 32, 32))
    for size in ((8, 3), (5, 32)):
        x = torch.rand(1, 3, *size)
        assert_same(faster(x), model(x).detach())
    with pytest.raises(ValueError, match=r"asks for .* != 1 .*Accelerate it again"):
        faster(torch.rand(1, 3, 4, 32))
