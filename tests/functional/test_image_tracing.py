"""What PyTorch's tracers and transforms make of the image layers: compile, export, ONNX, func."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from image_cases import F64, ImageCase
from torch import nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

from pointwise.functional import conv2d, depthwise_separable_conv2d, pointwise_conv2d
from pointwise.layers import Conv2d, ConvNormAct, DepthwiseConv2d, DepthwiseSeparableConv2d


class Small(nn.Module):
    """Every layer, every way to pad, most activations, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Conv2d(3, 8, 3, stride=2, padding="same", activation="hardswish")
        self.second = DepthwiseSeparableConv2d(8, 12, norm=nn.BatchNorm2d, activation="relu6")
        self.third = ConvNormAct(12, 12, 1, activation="gelu")
        self.last = DepthwiseConv2d(12, 5, stride=2, padding=((0, 1), (2, 1)), depth_multiplier=2,
                                    activation="silu")  # fmt: skip

    def forward(self, x):
        x = self.second(self.first(x))
        return self.last(self.third(x, x)).mean((2, 3))


def pictures(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(sum(sizes)))


SIZES = ((2, 3, 17, 20), (3, 3, 20, 18), (5, 3, 31, 33))
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# --- torch.compile --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "training",
    [pytest.param(False, marks=pytest.mark.rare), True],
    ids=["eval", "train"],
)
def test_compiled_as_one_graph_also_for_other_sizes(training, compiler):
    network = Small().train(training)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=True)
    for sizes in SIZES:
        results = []
        for form in (compiled, network):
            x = pictures(*sizes).requires_grad_()
            out = form(x)
            slopes = torch.autograd.grad(out.square().sum(), [x, *network.parameters()])
            results.append((out, *slopes))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, **CLOSE)


def test_compiled_without_gradients(compiler):
    network = Small().eval()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for sizes in SIZES:
            x = pictures(*sizes)
            torch.testing.assert_close(compiled(x), network(x), **CLOSE)
    with torch.inference_mode():
        x = pictures(2, 3, 17, 20)
        torch.testing.assert_close(compiled(x), network(x), **CLOSE)


def test_compiled_with_breaks_in_the_graph(compiler):
    # Around a break the operators run while the compiler watches: it must not look into them.
    network = Small().eval()

    def function(x):
        x = network.first(x)
        torch._dynamo.graph_break()
        return network.second(x)

    x = pictures(2, 3, 17, 20)
    compiled = torch.compile(function, backend="aot_eager")
    torch.testing.assert_close(compiled(x), function(x), **CLOSE)


@pytest.mark.rare
def test_compiled_by_inductor(compiler):
    network = Small().eval()
    compiled = torch.compile(network, fullgraph=True)
    with torch.no_grad():
        x = pictures(2, 3, 17, 20)
        try:
            found = compiled(x)
        except Exception as error:
            if "compiler" in str(error).lower():
                pytest.skip("no C++ compiler for inductor")
            raise
        torch.testing.assert_close(found, network(x), **CLOSE)


def test_wrong_sizes_are_refused_while_compiling(compiler):
    compiled = torch.compile(lambda x, w: conv2d(x, w), backend="aot_eager")
    compiled(torch.ones(1, 2, 5, 5), torch.ones(3, 2, 3, 3))
    # The compiler wraps what is raised while it traces, but the sentence stays.
    with pytest.raises(Exception, match=r"is too small for a kernel of 3 × 3"):
        compiled(torch.ones(1, 2, 2, 5), torch.ones(3, 2, 3, 3))


# --- torch.export ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [(), (0,), (0, 2, 3)], ids=["fixed", "batch", "sizes"])
def test_exported(dynamic, tmp_path):
    network = Small().eval()
    # From 16 pixels on: what is smaller ends as less than one pixel, which has to be refused.
    spans = {d: torch.export.Dim(f"d{d}", min=2 if d == 0 else 16, max=512) for d in dynamic}
    with torch.no_grad():
        program = torch.export.export(network, (pictures(*SIZES[0]),), dynamic_shapes=(spans,))
        torch.export.save(program, tmp_path / "network.pt2")
        loaded = torch.export.load(tmp_path / "network.pt2").module()
        for sizes in SIZES:
            x = pictures(*(n if d in dynamic else SIZES[0][d] for d, n in enumerate(sizes)))
            torch.testing.assert_close(loaded(x), network(x), **CLOSE)


def test_exported_without_gradients_and_run_with_them():
    layer = Conv2d(3, 4, 3, activation="relu")
    x = pictures(2, 3, 6, 7)
    with torch.no_grad():
        loaded = torch.export.export(layer, (x,)).module()
    out = loaded(x)  # its parameters want gradients
    torch.testing.assert_close(out, layer(x))
    slopes = torch.autograd.grad(out.sum(), list(loaded.parameters()))
    expected = torch.autograd.grad(layer(x).sum(), list(layer.parameters()))
    torch.testing.assert_close(slopes, expected)


# --- ONNX -----------------------------------------------------------------------------------------


def to_onnx(network: nn.Module, dynamic: tuple[int, ...], sizes):
    """(session, nodes) of a network."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    spans = {d: torch.export.Dim(f"d{d}", min=2 if d == 0 else 16, max=512) for d in dynamic}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(network, (pictures(*sizes),), dynamo=True, verbose=False,
                                 dynamic_shapes=(spans,) if dynamic else None)  # fmt: skip
    assert made is not None
    model = made.model_proto
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    return runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ), model


@pytest.mark.parametrize(
    "dynamic",
    [
        (),
        (0,),
        (0, 2, 3),
    ],
    ids=["fixed", "batch", "sizes"],
)  # fmt: skip
def test_onnx_runs_it_with_standard_operators(dynamic):
    network = Small().eval()
    session, model = to_onnx(network, dynamic, SIZES[0])
    assert {node.domain for node in model.graph.node} == {""}
    assert len(model.functions) == 0
    assert "Conv" in {node.op_type for node in model.graph.node}
    (entry,) = session.get_inputs()
    for sizes in SIZES:
        x = pictures(*(n if d in dynamic else SIZES[0][d] for d, n in enumerate(sizes)))
        (found,) = session.run(None, {entry.name: x.numpy()})
        expected = network(x).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# --- vmap and the transforms of torch.func --------------------------------------------------------


def convolution(x, weight, bias, residual):
    return conv2d(x, weight, bias, padding=1, groups=2, activation="silu", residual=residual)


def plain(x, weight, bias, residual):
    return F.silu(F.conv2d(x, weight, bias, padding=1, groups=2) + residual)


SIZE = {"x": (2, 4, 5, 6), "weight": (6, 2, 3, 3), "bias": (6,), "residual": (2, 6, 5, 6)}


@pytest.mark.parametrize("over", [
    ("x",), ("weight",), ("bias",), ("residual",), ("x", "weight"), ("weight", "bias"),
    ("x", "weight", "bias", "residual"),
], ids="-".join)  # fmt: skip
@pytest.mark.parametrize("at", [0, 1, -1])
def test_vmap_over_each_argument(over, at):
    case = ImageCase("vmap")
    values = []
    for name, size in SIZE.items():
        values.append(torch.from_numpy(case.values(name, (3, *size) if name in over else size)))
    dims = tuple(at if name in over else None for name in SIZE)
    values = [v if d is None else v.movedim(0, d) for v, d in zip(values, dims, strict=True)]
    found = vmap(convolution, dims)(*values)
    torch.testing.assert_close(found, vmap(plain, dims)(*values))


def test_vmap_of_the_other_functions():
    case = ImageCase("vmap", channels=(3, 3))
    x = torch.from_numpy(case.values("x", (4, 3, 6, 7)))
    own, mix = (
        torch.from_numpy(case.values(n, s)) for n, s in (("o", (3, 1, 3, 3)), ("m", (5, 3)))
    )
    for function in (
        lambda x: depthwise_separable_conv2d(x, own, mix, stride=2, padding="same"),
        lambda x: pointwise_conv2d(x, mix, stride=2),
    ):
        # Images without a batch, mapped, are a batch.
        torch.testing.assert_close(vmap(function)(x), function(x))


def arguments():
    case = ImageCase("func")
    return [torch.from_numpy(case.values(name, size)) for name, size in SIZE.items()]


@pytest.mark.parametrize("which", range(3))
def test_func_grad(which):
    def total(function):
        return grad(lambda *a: function(*a).square().sum(), which)(*arguments())

    torch.testing.assert_close(total(convolution), total(plain))


@pytest.mark.parametrize("which", range(3))
def test_jacrev(which):
    found, expected = (jacrev(f, which)(*arguments()) for f in (convolution, plain))
    torch.testing.assert_close(found, expected)


def test_gradients_of_each_picture_by_itself():
    layer = ConvNormAct(3, 4, norm=None).double()
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    x = pictures(5, 3, 6, 7).double()

    def loss(parameters, picture):
        return functional_call(layer, parameters, (picture[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))(parameters, x)
    for i in range(5):
        alone = torch.autograd.grad(layer(x[i : i + 1]).square().sum(), list(layer.parameters()))
        for name, slope in zip(parameters, alone, strict=True):
            torch.testing.assert_close(found[name][i], slope)


def test_hessian():
    x = torch.randn(1, 2, 3, 3, dtype=F64)
    weight = torch.randn(2, 2, 2, 2, dtype=F64)
    found, expected = (
        hessian(lambda w: f(x, w).pow(3).sum())(weight)  # noqa: B023
        for f in (conv2d, F.conv2d)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("which", range(4))
def test_forward_mode_is_right_or_refused(which):
    # A tangent that is silently zero is the worst of all answers.
    values = arguments()
    direction = torch.ones_like(values[which])

    def along(function):
        def one(value):
            return function(*values[:which], value, *values[which + 1 :])

        return jvp(one, (values[which],), (direction,))

    torch.testing.assert_close(along(convolution), along(plain))


def test_jacobian_with_batched_gradients():
    # Several gradients at once through the backward pass.
    values = arguments()
    values[1].requires_grad_()
    for function in (convolution, plain):
        out = function(*values)
        seeds = torch.stack([torch.ones_like(out), out.detach()])
        (slopes,) = torch.autograd.grad(out, values[1], seeds, is_grads_batched=True)
        if function is convolution:
            found = slopes
    torch.testing.assert_close(found, slopes)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_dual_numbers_keep_their_tangents(training):
    # Forward mode without torch.func: nothing wants a gradient, and no transform is active.
    layer = ConvNormAct(4, 6).train(training).requires_grad_(False)
    x, direction = pictures(2, 4, 5, 6), pictures(2, 4, 5, 6, 1)[..., 0]
    forms = (
        (lambda x: conv2d(x, layer.conv.weight), lambda x: F.conv2d(x, layer.conv.weight)),
        (layer, lambda x: F.relu(layer.norm(F.conv2d(x, layer.conv.weight, padding=1)))),
    )
    for ours, theirs in forms:
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, direction)
            found, expected = (
                torch.autograd.forward_ad.unpack_dual(form(dual)).tangent for form in (ours, theirs)
            )
        assert found is not None
        torch.testing.assert_close(found, expected, **CLOSE)


# --- torch.jit.trace ------------------------------------------------------------------------------


def test_traced():
    network = Small().eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, pictures(2, 3, 17, 20))
        x = pictures(4, 3, 17, 20)
        torch.testing.assert_close(traced(x), network(x), **CLOSE)
    assert "pointwise::" not in str(traced.inlined_graph), "only PyTorch's own operators"
