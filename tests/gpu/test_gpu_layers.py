"""Layers, accelerated models and the choice of kernels on GPUs; kernels by Triton's interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import pointwise
from pointwise.acceleration import on_gpu
from pointwise.convolution.problem import describe
from pointwise.engine import choose_gpu, gpu, library
from pointwise.layers import DepthwiseSeparableConv2d, freeze, inference_gpu, training
from pointwise.layers.unit import Unit

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64


@pytest.fixture
def noted(monkeypatch):
    """The names of the operators that ran, each as often as it did."""
    names: list[str] = []
    for name in ("conv2d", "separable_conv2d", "norm_conv2d", "norm_act"):
        run = getattr(library.ops, name)
        monkeypatch.setattr(library.ops, name, _noting(names, name, run))
    return names


def _noting(names, name, run):
    def call(*arguments):
        names.append(name)
        return run(*arguments)

    return call


def block(device: str, **options) -> DepthwiseSeparableConv2d:
    """A separable block with numbers that matter everywhere."""
    torch.manual_seed(5)
    made = DepthwiseSeparableConv2d(9, 17, norm=nn.BatchNorm2d, activation="relu6", **options)
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            for row in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(row, 0.5, 1.5)
    return made.to(device)


def pictures(device: str, dtype=F32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 9, 6, 5, generator=generator).to(device, dtype)


def one_by_one(module: DepthwiseSeparableConv2d, x: torch.Tensor) -> torch.Tensor:
    """The same modules, by PyTorch's own functions."""
    for conv, norm, activation, _ in module.units():
        x = nn.Conv2d.forward(conv, nn.functional.pad(x, [0] * 4))
        x = nn.functional.relu6(norm(x)) if activation else norm(x)
    return x


# --- inference ------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_separable_block_is_one_kernel_with_its_norms_folded(device, noted):
    made, x = block(device).eval(), pictures(device)
    expected = one_by_one(made, x)
    with choose_gpu.forced(True):
        found = inference_gpu.run(x, made.units())
    assert noted == ["separable_conv2d"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    noted.clear()
    with choose_gpu.forced(False):
        found = inference_gpu.run(x, made.units())
    assert noted == ["conv2d", "conv2d"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_was_folded_is_kept_for_frozen_networks_only(device):
    made, x = block(device).eval(), pictures(device)
    before = inference_gpu.run(x, made.units())
    made.pointwise.norm.weight.data.mul_(2)  # which no version counts
    after = inference_gpu.run(x, made.units())
    assert not torch.allclose(before, after)
    first = inference_gpu.run(x, made.units(), frozen=True)
    made.pointwise.norm.weight.data.mul_(2)  # against the promise
    assert torch.equal(inference_gpu.run(x, made.units(), frozen=True), first)
    freeze(made)  # promised anew
    again = inference_gpu.run(x, made.units(), frozen=True)
    assert torch.equal(again, inference_gpu.run(x, made.units()))
    assert not torch.equal(again, first)


@torch.no_grad()
def test_models_of_16_bits_stay_of_them(device):
    made, x = block(device).eval(), pictures(device)
    exact = one_by_one(made, x)
    with choose_gpu.forced(True):
        found = inference_gpu.run(x.to(BF16), made.to(BF16).units())
    assert found.dtype == BF16
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05)


@torch.no_grad()
def test_under_autocast_results_have_its_type_and_weights_are_cast(device):
    made, x = block(device).eval(), pictures(device)
    exact = one_by_one(made, x)
    with choose_gpu.forced(True), torch.autocast(device, dtype=BF16):
        for given in (x, x.to(BF16)):  # what a layer before would hand on
            found = inference_gpu.run(given, made.units())
            assert found.dtype == BF16
            torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05)
        assert inference_gpu.run(x, made.units(), residual=exact) is None  # it would be float32


@torch.no_grad()
def test_what_does_not_fit_is_left_to_the_modules(device):
    made, x = block(device).eval(), pictures(device)
    units = made.units()
    assert inference_gpu.run(x.double(), units) is None
    assert inference_gpu.run(x[:, :4], units) is None
    assert inference_gpu.run(x[0], units) is None
    assert inference_gpu.run(x, units, residual=x) is None
    assert inference_gpu.run(x, block(device).units()) is None  # in training
    wide = Unit(nn.Conv2d(9, 9, 9, groups=9).eval().to(device))
    assert inference_gpu.run(x, [wide]) is None  # its kernel does not fit into the image


# --- training -------------------------------------------------------------------------------------


def test_a_training_step_is_that_of_the_separate_modules(device, noted, monkeypatch):
    if device == "cpu":  # as on a GPU, whose operators stand in for the CPU's here
        monkeypatch.setattr(training, "_run_as_one", lambda *given: False)
    made, plain = block(device, kernel_size=3, stride=2), block(device, kernel_size=3, stride=2)
    x = pictures(device)
    steps = []
    for module, run in ((made, made), (plain, lambda x: one_by_one(plain, x))):
        given = x.clone().requires_grad_()
        out = run(given)
        grad = torch.linspace(-1, 1, out.numel(), device=device).view(out.shape)
        slopes = torch.autograd.grad(out, [given, *module.parameters()], grad)
        steps.append([out.detach(), *slopes, *module.buffers()])
    assert noted == ["norm_conv2d", "norm_conv2d", "norm_act"]
    for one, other in zip(*steps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# --- models of others -----------------------------------------------------------------------------


def _others() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip


def test_an_accelerated_model_on_a_gpu_has_its_depthwise_convolutions_as_kernels(
    device, monkeypatch, noted, recwarn
):
    model, x = _others().to(device), torch.rand(2, 3, 8, 6).to(device)
    expected = model(x)
    if device == "cpu":
        real = torch.device("cuda", 0)
        monkeypatch.setattr(on_gpu, "device_of", lambda values: real if list(values) else None)
    faster = pointwise.accelerate(model, x)
    noted.clear()
    with choose_gpu.forced(True):
        found = faster(x)
    assert noted == ["conv2d"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert "norms folded, depthwise convolutions as kernels for GPUs" in str(faster.reports()[0])
    assert not [each for each in recwarn if "plain PyTorch" in str(each.message)]
    with pytest.raises(ValueError, match=r"precision='bf16' is for models on the CPU, and this"):
        pointwise.accelerate(model, x, precision="bf16")


# --- who runs -------------------------------------------------------------------------------------


def depthwise(size=56, channels=64, kernel=3, dtype=BF16, batch=8, **changes):
    options = {"stride": (1, 1), "padding": (kernel // 2,) * 4, "dilation": (1, 1)} | changes
    weight = channels, 1, kernel, kernel
    return describe((batch, channels, size, size), weight, **options, groups=channels, dtype=dtype)


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choose_gpu._table.cache_clear()
    yield tmp_path
    choose_gpu._table.cache_clear()


CPU = torch.device("cpu")


def test_without_a_measurement_a_rule_chooses(own_cache, monkeypatch):
    runs = choose_gpu.runs
    forward = choose_gpu.FORWARD
    assert not runs(depthwise(), forward, CPU)
    assert runs(depthwise(), forward, CPU, follows=True)
    assert runs(depthwise(kernel=7), forward, CPU)
    assert runs(depthwise(), choose_gpu.INPUT_GRADIENT, CPU)
    assert runs(depthwise(), choose_gpu.WEIGHT_GRADIENT, CPU)
    assert not runs(depthwise(kernel=7, dtype=F64), forward, CPU)
    assert runs(depthwise(), choose_gpu.SEPARABLE, CPU, columns=128)
    assert not runs(depthwise(), choose_gpu.SEPARABLE, CPU, columns=1024)
    assert runs(depthwise(dtype=F32), choose_gpu.SEPARABLE, CPU, columns=128)
    monkeypatch.setattr(choose_gpu, "in_tf32", lambda: False)
    assert not runs(depthwise(dtype=F32), choose_gpu.SEPARABLE, CPU, columns=128)


def test_both_of_pytorchs_switches_for_tf32_are_read():
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    try:
        for precision, expected in (("ieee", False), ("tf32", True)):
            conv.fp32_precision = precision
            assert gpu.in_tf32() is expected
    finally:
        conv.fp32_precision = before
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert not gpu.in_tf32()


def test_a_measurement_decides_for_every_batch(own_cache):
    seven, three = depthwise(kernel=7), depthwise()
    task = choose_gpu.FORWARD
    times = {choose_gpu.key_of(seven, task): (2.0, 1.0), choose_gpu.key_of(three, task): (1.0, 2.0)}
    path = choose_gpu.remember(CPU, times)
    assert own_cache in path.parents
    assert torch.__version__ in path.name
    assert choose_gpu.runs(depthwise(batch=77), task, CPU)
    assert not choose_gpu.runs(depthwise(kernel=7, batch=1), task, CPU)
    assert choose_gpu.runs(depthwise(kernel=7, channels=65), task, CPU)  # not measured
    choose_gpu.remember(CPU, {choose_gpu.key_of(seven, task): (0.5, 1.0)})
    assert choose_gpu.runs(seven, task, CPU)
    assert choose_gpu.runs(three, task, CPU)
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # nothing is left beside


@pytest.mark.parametrize("damage", ["", "[1, 2]", '{"milliseconds": {"a": 3}}', "\0"])
def test_a_damaged_table_is_passed_over_and_named(own_cache, damage):
    path = choose_gpu.remember(CPU, {})
    path.write_text(damage)
    choose_gpu._table.cache_clear()
    with pytest.warns(UserWarning, match=r"cannot be read .* delete it, and measure again"):
        assert choose_gpu.runs(depthwise(kernel=7), choose_gpu.FORWARD, CPU)


def test_why_no_kernel_runs():
    why = choose_gpu.why_not
    assert why(depthwise()) is None
    assert why(depthwise(size=2, kernel=7, padding=(0,) * 4)) == (
        "its kernel does not fit into the image"
    )
    assert why(depthwise(batch=0)) == "there is nothing to compute"
    assert "not uint8" in why(depthwise(dtype=torch.uint8))
    assert why(depthwise(size=40_000, channels=60_000)) == (
        "its pixels are more than kernels on GPUs count"
    )
    standard = describe((1, 8, 9, 9), (8, 8, 3, 3), (1, 1), (1,) * 4, (1, 1), 1, F32)
    assert "cuDNN's" in why(standard)
    assert "float64 has no kernel" in why(depthwise(dtype=F64), choose_gpu.SEPARABLE)


def test_where_a_form_for_gpus_gives_none_the_plain_one_runs():
    run = library._where_it_can(lambda x: None, lambda x: "plain")
    assert run(torch.zeros(1)) == "plain"


# --- compiled ahead of time -----------------------------------------------------------------------


def _compile(kernels: str, types: str, capabilities: str) -> list[str]:
    import os

    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compiled.py")
    command = [sys.executable, str(script), kernels, types, capabilities]
    made = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr[-2000:]
    return made.stdout.splitlines()


def test_kernels_compile_for_gpus():
    """Without one: by ptxas of Triton's own, for a type of 16 bits; all others are slow tests."""
    lines = _compile("3x3 stride 2,separable 9x9", "bfloat16", "90")
    assert {line.split(" sm_90 ")[1].split(":")[0] for line in lines} == {
        "depthwise_kernel", "separable_kernel",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "capability"),
    [("float32", "80"), ("bfloat16", "90"), ("float16", "80"), ("float64", "90")],
)
def test_every_kernel_compiles_for_every_type(dtype, capability):
    lines = _compile("", dtype, capability)
    kernels = {line.split(f" sm_{capability} ")[1].split(":")[0] for line in lines}
    expected = {
        "depthwise_kernel", "depthwise_weight_gradient_kernel", "moments_kernel", "norm_act_kernel",
        "norm_act_gradient_kernel", "corrected_kernel",
    }  # fmt: skip
    assert kernels >= expected
    if dtype != "float64":
        assert kernels >= {"separable_kernel", "fold_kernel"}
