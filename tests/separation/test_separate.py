"""``separate``: what becomes of networks, what is left alone and why, what is refused."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import pointwise
from pointwise.costs import cost
from pointwise.layers import Conv2d, ConvNormAct, DepthwiseSeparableConv2d
from pointwise.networks import MobileNetV1, ResNet50
from pointwise.separation import measure, separate, separate_as
from pointwise.timing import Times, Watch


def random(*sizes, seed=0, dtype=torch.float32):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Net(nn.Module):
    """A little of everything, in plain PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 5, stride=2, padding="valid")
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 16, 3, padding=1, groups=2, bias=False)
        self.third = nn.Conv2d(16, 16, (1, 5), padding="same", dilation=(1, 2))
        self.mix = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24, 7)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(self.third(self.second(x)) + x.repeat(1, 2, 1, 1)[:, :16])
        return self.head(self.mix(x).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    made = Net()
    with torch.no_grad():
        made(random(8, 3, 20, 20) + 1)  # statistics of its own
    return made.eval()


X = random(4, 3, 21, 20, seed=3)


def test_at_full_rank_nothing_changes(net):
    new, report = separate(net, rank=99, input=X)
    assert report.ranks == {"first": 12, "second": 8, "third": 5}
    with torch.no_grad():
        torch.testing.assert_close(new(X), net(X), rtol=1e-4, atol=1e-5)
    assert report.output_error < 1e-5
    assert all(layer.weight_error < 1e-6 for layer in report.layers if layer.rank)
    assert {type(getattr(new, name)) for name in report.ranks} == {DepthwiseSeparableConv2d}


def test_double_precision_is_exact(net):
    net = net.double()
    new = separate(net, rank=99).module
    with torch.no_grad():
        found, expected = new(X.double()), net(X.double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert {p.dtype for p in new.parameters()} == {torch.float64}


def test_the_given_network_stays_as_it_is(net):
    before = copy.deepcopy(net.state_dict())
    net.head.requires_grad_(False)
    net.second.weight.requires_grad_(False)
    net.mix.train()
    new = separate(net, rank=1, input=X, calibration=random(8, 3, 20, 20)).module
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert isinstance(net.first, nn.Conv2d)
    assert [part.training for part in (net.mix, net.norm, net)] == [True, False, False]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    # What was frozen or in training is so in the new one.
    assert new.mix.training
    assert not new.first.depthwise.training
    assert not new.second.depthwise.conv.weight.requires_grad
    assert new.third.pointwise.conv.bias.requires_grad


def test_inplace(net):
    expected = separate(net, rank=2, input=X, calibration=random(8, 3, 20, 20))
    other = copy.deepcopy(net)
    new, report = separate(other, rank=2, input=X, calibration=random(8, 3, 20, 20), inplace=True)
    assert new is other
    assert report == expected.report
    with torch.no_grad():
        assert torch.equal(new(X), expected.module(X))
    with pytest.raises(ValueError, match="a lone convolution cannot be replaced inplace"):
        separate(nn.Conv2d(3, 8, 3), rank=1, inplace=True)


def test_a_lone_convolution_becomes_the_whole():
    for conv in (nn.Conv2d(1, 8, 3), Conv2d(3, 8, 3, padding=((0, 1), (2, 1)), activation="relu")):
        new, report = separate(conv, rank=9, input=(2, conv.in_channels, 9, 9))
        assert isinstance(new, DepthwiseSeparableConv2d)
        x = random(2, conv.in_channels, 9, 9)
        residual = random(*conv(x).shape, seed=1)
        with torch.no_grad():
            torch.testing.assert_close(new(x), conv(x), rtol=1e-4, atol=1e-5)
            if isinstance(conv, Conv2d):
                torch.testing.assert_close(
                    new(x, residual), conv(x, residual), rtol=1e-4, atol=1e-5
                )
        assert "(itself)" in str(report)


# --- ours, as blocks ------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_our_blocks_run_them_as_their_own(training):
    torch.manual_seed(0)
    network = MobileNetV1(classes=5, width=0.25, convolution="standard", stem_stride=1)
    new, report = separate(network.train(training), rank=9, input=(1, 3, 32, 32))
    assert len(report.ranks) == 14
    x = random(4, 3, 32, 32)
    with torch.set_grad_enabled(training):
        found, expected = new(x), network(x)
    # In training, batch norm divides by the spread of few pixels, so that rounding grows.
    assert float((found - expected).detach().norm() / expected.detach().norm()) < 0.02
    if training:
        new(x).sum().backward()
        assert all(p.grad is not None for p in new.parameters())


def test_bottlenecks():
    torch.manual_seed(0)
    network = ResNet50(classes=5).eval()
    new, report = separate(network, rank=49)
    assert sorted(report.ranks.values()) == 16 * [9] + [49]  # one in each block, and the stem
    x = random(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)
        error = float((new(x) - expected).norm() / expected.norm())
    assert error < 1e-4
    assert report.multiply_adds is None
    assert report.parameters[1] == sum(p.numel() for p in new.parameters())


# --- ranks ----------------------------------------------------------------------------------------


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return MobileNetV1(classes=5, width=0.25, convolution="standard", stem_stride=1).eval()


def test_an_error_is_kept_to_in_every_layer(plain):
    report = separate(plain, error=0.3).report
    assert 0 < len(report.ranks) < 14
    for layer in report.layers:
        if layer.rank is not None:
            assert layer.weight_error <= 0.3
            assert layer.parameters[1] < layer.parameters[0]
        else:
            assert "below an error of 0.3 it would multiply no less" in layer.why
    one_less = separate(plain, rank={name: rank - 1 for name, rank in report.ranks.items()
                                     if rank > 1}).report  # fmt: skip
    assert all(layer.weight_error > 0.3 for layer in one_less.layers if layer.rank is not None)


@pytest.mark.parametrize("of", ["multiply_adds", "parameters"])
def test_a_budget_is_kept_and_used(plain, of):
    whole = getattr(separate(plain, rank=1, input=(1, 3, 32, 32)).report, of)[0]
    errors = []
    for share in (0.2, 0.4, 0.7):
        new, report = separate(plain, budget=share, of=of, input=(1, 3, 32, 32))
        before, after = getattr(report, of)
        assert before == whole
        assert 0.93 * share * whole < after <= share * whole
        errors.append(sum(layer.weight_error**2 for layer in report.layers if layer.rank))
        counted = cost(new, (1, 3, 32, 32)).totals
        assert counted.multiply_adds == report.multiply_adds[1]
        assert counted.parameters == report.parameters[1]
    assert errors == sorted(errors, reverse=True)
    as_number = separate(plain, budget=int(0.4 * whole), of=of, input=(1, 3, 32, 32)).report
    assert as_number.ranks == separate(plain, budget=0.4, of=of, input=(1, 3, 32, 32)).report.ranks
    all_of_it = separate(plain, budget=1, of=of, input=(1, 3, 32, 32)).report
    assert all_of_it.ranks == {}
    assert "Nothing was separated" in str(all_of_it)
    assert "the budget has room for it as it is" in str(all_of_it)


def test_counts_of_layers_are_those_of_the_costs(plain):
    new, report = separate(plain, rank=2, input=(3, 3, 40, 32))
    before, after = (cost(net, (1, 3, 40, 32)) for net in (plain, new))
    own = {layer.path: layer.count.multiply_adds for layer in before.layers}
    halves = {layer.path: layer.count.multiply_adds for layer in after.layers}
    for layer in report.layers:
        inside = [v for path, v in halves.items() if path.startswith(f"{layer.name}.")]
        assert len(inside) == 2
        assert layer.multiply_adds == (own[layer.name], sum(inside))
    saved = sum(layer.multiply_adds[0] - layer.multiply_adds[1] for layer in report.layers)
    assert report.multiply_adds[0] - report.multiply_adds[1] == saved


def test_some_layers_by_name(net):
    report = separate(net, rank={"second": 3, "third": 50}).report
    assert report.ranks == {"second": 3, "third": 5}
    (left,) = [layer for layer in report.layers if layer.name == "first"]
    assert left.why == "rank does not name it"


def test_images_decide_which_layers_matter(plain):
    images = F.avg_pool2d(random(16, 3, 36, 36), 5, 1)
    report = separate(plain, error=0.3, calibration=images).report
    assert report.ranks
    assert all(layer.output_error < 0.45 for layer in report.layers if layer.rank is not None)
    blind = separate(plain, error=0.3, input=images).report
    assert sum(report.ranks.values()) < sum(blind.ranks.values()) + 8 * (14 - len(blind.ranks))
    # A separate input is what outputs are compared on.
    other = separate(plain, error=0.3, calibration=images, input=images[:2]).report
    assert other.ranks == report.ranks
    assert other.output_error != report.output_error


# --- times ----------------------------------------------------------------------------------------


def same(*milliseconds):
    """Before and after, the same in each of eight rounds."""
    return tuple(Times((each,) * 8) for each in milliseconds)


def test_only_what_is_faster(plain, monkeypatch):
    seen = []

    def timed(conv, made, calls, batch):
        seen.append((calls.inputs[0], batch))
        return same(2.0, 1.0) if conv.in_channels > 40 else same(1.0, 1.5)

    monkeypatch.setattr(measure, "layer_times", timed)
    monkeypatch.setattr(
        measure, "network_times", lambda before, after, x: same(10.0 * len(x), 20.0)
    )
    report = separate(plain, rank=2, input=(2, 3, 32, 32), timed=True, batch=3).report
    slow = {layer.name for layer in report.slower}
    assert slow == {"stem.conv", "blocks.0.conv", "blocks.1.conv", "blocks.2.conv", "blocks.3.conv"}
    assert {batch for _, batch in seen} == {3}
    assert seen[0][0] == (1, 3, 32, 32)
    assert report.milliseconds == (30.0, 20.0)
    assert "Slower, though the count is lower: stem.conv, blocks.0.conv" in str(report)
    quick = separate(plain, rank=2, input=(1, 3, 32, 32), only_faster=True).report
    assert set(quick.ranks) == set(report.ranks) - slow
    text = str(quick)
    assert "not faster at rank 2 (1.5 ms, now 1 ms)" in text
    assert "The whole network takes 2.0 times as long as it did." in text


def test_what_may_be_chance_is_neither_faster_nor_slower(plain, monkeypatch):
    scattered = Times((1.0, 1.4, 0.8, 1.1, 0.7, 1.3, 1.0, 0.9))
    alike = (Times((1.0,) * 8), scattered)
    monkeypatch.setattr(measure, "layer_times", lambda *given: alike)
    monkeypatch.setattr(measure, "network_times", lambda *given: alike)
    report = separate(plain, rank=2, input=(1, 3, 32, 32), timed=True).report
    assert not report.slower
    assert "as fast as it was, as far as can be told" in str(report)
    quick = separate(plain, rank=2, input=(1, 3, 32, 32), only_faster=True).report
    assert not quick.ranks  # nothing was measured to be faster


def test_a_busy_machine_gives_no_verdict(plain, monkeypatch):
    monkeypatch.setattr(measure, "layer_times", lambda *given: same(1.0, 1.5))
    monkeypatch.setattr(measure, "network_times", lambda *given: same(10.0, 20.0))
    monkeypatch.setattr(Watch, "busy", lambda self, *times: "somebody computes")
    report = separate(plain, rank=2, input=(1, 3, 32, 32), timed=True).report
    text = str(report)
    assert report.busy == "somebody computes"
    assert not report.slower
    assert "This machine is busy: somebody computes." in text
    assert " ms " not in text
    assert "times as" not in text
    with pytest.raises(ValueError, match=r"only_faster cannot be decided, since this machine is b"):
        separate(plain, rank=2, input=(1, 3, 32, 32), only_faster=True)


def test_a_layer_that_takes_longer_than_its_network_is_no_finding(plain, monkeypatch):
    monkeypatch.setattr(measure, "layer_times", lambda *given: same(9.0, 0.5))
    monkeypatch.setattr(measure, "network_times", lambda *given: same(4.0, 2.0))
    report = separate(plain, rank=2, input=(1, 3, 32, 32), timed=True).report
    assert report.busy == ("stem.conv alone took longer (9 ms) than the whole network (4 ms)")
    assert "This machine is busy: stem.conv alone took longer" in " ".join(str(report).split())


def test_times_are_measured(net):
    report = separate(net, rank=1, input=(2, 3, 21, 20), timed=True, batch=2).report
    for layer in report.layers:
        assert (layer.milliseconds is not None) == (layer.rank is not None)
        if layer.milliseconds is not None:
            assert all(0 < each < 1000 for each in layer.milliseconds)
    assert all(0 < each < 1000 for each in report.milliseconds)
    assert report.batch == 2


# --- what comes out -------------------------------------------------------------------------------


def test_it_learns_pickles_and_loads(net):
    new, report = separate(net.train(), rank=2)
    optimizer = torch.optim.SGD(new.parameters(), lr=0.05)
    target = random(4, 7, seed=5)
    losses = []
    for _ in range(8):
        loss = F.mse_loss(new(X), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0]
    new.eval()
    with torch.no_grad():
        expected = new(X)
        assert torch.equal(pickle.loads(pickle.dumps(new))(X), expected)
        assert torch.equal(copy.deepcopy(new)(X), expected)
        file = io.BytesIO()
        torch.save({"separated": report.ranks, "weights": new.state_dict()}, file)
        file.seek(0)
        kept = torch.load(file, weights_only=True)
        other = separate_as(Net(), kept["separated"])
        other.load_state_dict(kept["weights"])
        assert torch.equal(other.eval()(X), expected)


def test_names_in_the_state_dict(net):
    new = separate(net, rank={"second": 2}).module
    assert set(new.state_dict()) - set(net.state_dict()) == {
        "second.depthwise.conv.weight",
        "second.pointwise.conv.weight",
    }


def test_one_convolution_in_two_places_is_replaced_in_both():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    network = nn.Sequential(conv, nn.ReLU(), conv)
    new, report = separate(network, rank=2, input=(1, 4, 8, 8))
    assert new[0] is new[2]
    assert report.ranks == {"0": 2}
    assert report.layers[0].multiply_adds == (2 * 64 * 4 * 4 * 9, 2 * 64 * 4 * 2 * 13)
    assert report.multiply_adds == report.layers[0].multiply_adds


# --- what is left alone ---------------------------------------------------------------------------


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def shared() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    network[1].weight = network[0].weight
    return network


def hooked() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(4, 4, 3))
    network[0].register_forward_hook(lambda *given: None)
    return network


def not_finite() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(4, 4, 3))
    nn.init.constant_(network[0].weight, float("nan"))
    return network


LEFT = {
    "pointwise (1×1) already": lambda: nn.Sequential(nn.Conv2d(4, 8, 1)),
    "depthwise already": lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4)),
    "pads with 'reflect', and ours pad with zeros": lambda: nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect")
    ),
    "a ConvTranspose2d; only Conv2d is separated": lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 8, 3)
    ),
    "a Conv3d; only Conv2d": lambda: nn.Sequential(nn.Conv3d(4, 8, 3)),
    "its class Doubled computes in a way of its own": lambda: nn.Sequential(Doubled(4, 8, 3)),
    "computed from others (parametrized)": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(4, 8, 3))
    ),
    "has no shape yet; run the network once": lambda: nn.Sequential(nn.LazyConv2d(8, 3)),
    "its weight belongs to another module": shared,
    "it has hooks, which would be lost": hooked,
    "its weight is not finite": not_finite,
    "its weight is meta": lambda: nn.Sequential(nn.Conv2d(4, 8, 3, device="meta")),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_cannot_be_separated_is_left_alone_and_says_why(reason):
    network = LEFT[reason]()
    if "no shape" in reason:  # which cannot be counted either
        network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.LazyConv2d(8, 3))
        from pointwise.separation.candidates import reasons

        assert reason in reasons(network)["1"]
        return
    new, report = separate(network, rank=1)
    assert report.ranks == {}
    assert reason in report.layers[0].why
    assert type(new[0]) is type(network[0])
    assert "Nothing was separated" in str(report)


def test_what_does_not_run_is_left_alone(net):
    net.unused = nn.Conv2d(3, 8, 3)
    report = separate(net, rank=1, input=X).report
    assert report.layers[-1].name == "unused"
    assert report.layers[-1].why == "the input does not reach it"
    assert [layer.name for layer in report.layers] == ["first", "second", "third", "mix", "unused"]


def test_what_would_save_nothing_is_left_alone():
    network = nn.Sequential(nn.Conv2d(4, 1, 3), nn.Conv2d(1, 8, (1, 2)))
    report = separate(network, error=0.9).report
    assert report.layers[0].why == "even rank 1 would multiply no less"
    assert separate(network, rank=1).report.ranks == {"0": 1, "1": 1}  # whoever asks for it


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of error, budget and rank, such as budget=0.5.*got none"),
        ({"error": 0.1, "rank": 2}, "got error and rank"),
        ({"error": 1.0}, "error must lie from 0 to less than 1, got 1.0"),
        ({"error": -0.1}, "error must lie from 0 to less than 1, got -0.1"),
        ({"budget": 0}, "budget must be a share up to 1, or a number above it, got 0"),
        ({"budget": 0.5}, 'multiply-adds depend on the size.*give input.*or.*of="parameters"'),
        ({"budget": 0.01, "of": "parameters"}, "a budget of 36 parameters cannot be kept: with rank"
         " 1 everywhere there are 1,286, which is budget=0.3496"),
        ({"rank": 0}, "rank must be 1 or more, got 0"),
        ({"rank": {"second": 0}}, "rank of 'second' must be 1 or more, got 0"),
        ({"rank": {"fourth": 1}}, "rank names 'fourth'; what can be separated is 'first'"),
        ({"rank": {"mix": 1}}, "'mix', which cannot be separated: pointwise"),
        ({"rank": 1, "of": "flops"}, "of must be one of"),
        ({"rank": 1, "timed": True}, "timed needs input, an example or its shape"),
        ({"rank": 1, "only_faster": True}, "only_faster needs input"),
        ({"rank": 1, "input": (1, 3, 0, 5)}, r"a shape such as \(1, 3, 224, 224\), got \(1, 3, 0"),
        ({"rank": 1, "input": X[:0]}, r"at least one, got \[0, 3, 21, 20\]"),
        ({"rank": 1, "input": X, "batch": 0}, "batch must be"),
    ],
)  # fmt: skip
def test_what_is_refused(net, options, message):
    with pytest.raises(ValueError, match=message):
        separate(net, **options)


def test_what_is_of_another_type_is_refused(net):
    with pytest.raises(TypeError, match=r"module must be a torch.nn.Module, got function"):
        separate(lambda x: x, rank=1)
    for rank in (True, 1.5, [2]):
        with pytest.raises(TypeError, match=r"rank must be a number or \{name: rank\}, got"):
            separate(net, rank=rank)
    with pytest.raises(TypeError, match=r"ranks must be \{name: rank\}, got int"):
        separate_as(net, 3)
    with pytest.raises(ValueError, match=r"no convolution is called 'x'; there are 'first',"):
        separate_as(net, {"x": 3})
    with pytest.raises(ValueError, match=r"'mix' cannot be separated: pointwise"):
        separate_as(net, {"mix": 3})
    with pytest.raises(ValueError, match=r"the rank of 'first' must be 1 or more, got 0"):
        separate_as(net, {"first": 0})


def test_it_is_at_the_top():
    assert pointwise.separate is separate
    assert "separate" in pointwise.__all__
    assert ConvNormAct is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_said(value):
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    network[1].weight.data[0, 0, 0, 0] = value
    with pytest.warns(UserWarning, match="^separate: 1 is left as it is, for its weight is not"):
        separate(network, rank=1)
