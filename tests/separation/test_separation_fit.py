"""Pointwise weights fitted to images, and errors measured on images that were not fitted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pointwise.layers import Conv2d
from pointwise.separation import calibrate, separate
from pointwise.separation.calibrate import Fit, NormalEquations, batches_of, patches
from pointwise.separation.expand import expand


def random(*sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(images: int, channels: int, seed=0) -> torch.Tensor:
    """Images whose neighbouring pixels and channels are alike, as those of cameras are."""
    noise = random(images, channels, 20, 20, seed=seed)
    mixed = torch.einsum("oc,nchw->nohw", random(channels, channels, seed=9), noise)
    return F.avg_pool2d(mixed, 5, 1) + 0.5


GEOMETRIES = {
    "plain": {"padding": 1},
    "stride, dilation, groups": {"stride": 2, "dilation": 2, "groups": 2, "padding": (0, 2)},
    "same": {"padding": "same", "kernel_size": (5, 3)},
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("made", [nn.Conv2d, Conv2d])
def test_patches_are_what_the_convolution_sees(name, made):
    options = {"kernel_size": 3, **GEOMETRIES[name]}
    conv = made(4, 6, bias=False, **options).double()
    x = random(3, 4, 9, 8)
    expected = conv(x).detach()
    places = torch.stack([torch.randperm(expected[0, 0].numel())[:7] for _ in range(3)])
    found = patches(x, conv, places)
    assert found.shape == (3, 7, 4, conv.kernel_size[0] * conv.kernel_size[1])
    weight = conv.weight.detach().flatten(2).unflatten(0, (conv.groups, -1))  # [g, o, C/g, K]
    grouped = found.unflatten(2, (conv.groups, -1))
    results = torch.einsum("nsgck,gock->nsgo", grouped, weight).flatten(2)
    flat = expected.flatten(2)
    for image in range(3):
        torch.testing.assert_close(results[image], flat[image][:, places[image]].T)


def test_moments_know_the_errors_of_every_weight():
    z, y = random(50, 6), random(50, 3, seed=1)
    moments = NormalEquations()
    moments.add(z[:20], y[:20])
    moments.add(z[20:], y[20:])
    for columns in (2, 6):
        weight = random(columns, 3, seed=2)
        expected = float((y - z[:, :columns] @ weight).square().sum())
        assert moments.squares(weight) == pytest.approx(expected, rel=1e-12)
    assert moments.spread() == pytest.approx(float((y - y.mean(0)).square().sum()), rel=1e-12)


def test_a_fit_is_least_squares_and_falls_back_on_what_it_began_with(monkeypatch):
    z = random(200, 5)
    z[:, 4] = 0  # nothing is known of this direction
    true = random(5, 2, seed=1)
    moments = NormalEquations()
    moments.add(z, z @ true)
    prior = random(5, 2, seed=2)
    monkeypatch.setattr(calibrate, "RIDGE", 1e-9)
    found = Fit(moments).near(prior)
    torch.testing.assert_close(found[:4], true[:4], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[4], prior[4])
    # Fewer columns, with the same decomposition of the matrix.
    some = Fit(moments).near(prior[:3])
    expected = torch.linalg.lstsq(z[:, :3], z @ true).solution
    torch.testing.assert_close(some, expected, rtol=0, atol=1e-6)
    nothing = NormalEquations()
    nothing.add(torch.zeros(9, 5, dtype=torch.float64), torch.zeros(9, 2, dtype=torch.float64))
    torch.testing.assert_close(Fit(nothing).near(prior), prior)


@pytest.mark.parametrize("groups", [1, 2])
def test_fitted_to_images_the_results_are_nearer(groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 12, 3, padding=1, groups=groups).double()
    images = smooth(24, 4)
    plain = separate(conv, rank=1, input=images)
    fitted = separate(conv, rank=1, input=images, calibration=images)
    unseen = smooth(24, 4, seed=5)
    with torch.no_grad():
        whole = conv(unseen)
        errors = [float((each.module(unseen) - whole).norm()) for each in (plain, fitted)]
    assert errors[1] < 0.75 * errors[0]
    assert fitted.report.layers[0].output_error < 0.75 * plain.report.layers[0].output_error
    # The filters are those of the decomposition; the bias is as it was.
    halves = [each.module.depthwise.conv.weight for each in (plain, fitted)]
    assert torch.equal(*halves)
    assert torch.equal(fitted.module.pointwise.conv.bias, conv.bias)


def test_the_curve_is_the_error_on_images_that_were_not_fitted(monkeypatch):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 16, 3, bias=False).double()
    images = smooth(40, 3)
    monkeypatch.setattr(calibrate, "LEAST_SAMPLES", 40 * 14 * 14)  # every pixel
    expansion = expand(conv.weight)
    found = calibrate.curve(conv, conv, expansion, batches_of(images), 3)
    assert len(found) == 3
    held = torch.arange(40) % 4 == 3
    for rank, error in enumerate(found, 1):
        # All of it again, with PyTorch's convolutions and its least squares.
        with torch.no_grad():
            seen = F.conv2d(images, expansion.depthwise(rank), groups=3)
            target = conv(images)
        rows = [each.transpose(0, 1).flatten(1).T for each in (seen[~held], target[~held])]
        solution = torch.linalg.lstsq(*rows).solution
        test = [each.transpose(0, 1).flatten(1).T for each in (seen[held], target[held])]
        off = float((test[0] @ solution - test[1]).square().sum())
        spread = float((test[1] - test[1].mean(0)).square().sum())
        assert error == pytest.approx((off / spread) ** 0.5, rel=0.15)  # but for the pull
    assert found == sorted(found, reverse=True)


def test_later_layers_mend_what_earlier_ones_lost():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)
    ).double()
    images = smooth(48, 4)
    found = separate(network, rank=1, calibration=images).module
    # The last layer alone, fitted to what the network as it was gave it.
    last = separate(network, rank={"4": 1}, calibration=images).module
    apart = nn.Sequential(*found[:4], last[4])
    unseen = smooth(48, 4, seed=3)
    with torch.no_grad():
        whole = network(unseen)
        together, each = (float((net(unseen) - whole).norm()) for net in (found, apart))
    assert together < 0.97 * each


def test_batches_of_every_kind():
    images = random(70, 3, 4, 4)
    assert [len(batch) for batch in batches_of(images)] == [32, 32, 6]
    pairs = [(images[:5], torch.zeros(5)), (images[5:9], torch.zeros(4))]
    assert [len(batch) for batch in batches_of(pairs)] == [5, 4]
    assert [len(batch) for batch in batches_of(images.split(1)[:4])] == [1] * 4
    with pytest.raises(ValueError, match=r"must be images \[N, C, H, W\].*got \[3, 4, 4\]"):
        batches_of([images[0]])
    with pytest.raises(ValueError, match="or an iterable of such batches, got str"):
        batches_of(["a.png"])
    with pytest.raises(ValueError, match="at least 4 images, better a hundred or more, got 3"):
        batches_of(images[:3])


def test_images_one_by_one_are_held_out_too():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 16, 3).double()
    images = smooth(16, 3)
    by_one = separate(conv, error=0.5, calibration=images.split(1)).report
    at_once = separate(conv, error=0.5, calibration=images).report
    assert by_one.ranks == at_once.ranks != {}
