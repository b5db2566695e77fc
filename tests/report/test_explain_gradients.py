"""The numbers of the page, forward and on the way back, are those of PyTorch and its autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from explain_pages import (
    CLOUD_KINDS,
    IMAGE_KINDS,
    choose,
    cloud_operands,
    cloud_table,
    image_operands,
    image_table,
    neighborhood,
    shown,
)
from torch import Tensor

from pointwise.report.explain import examples

# The values of all stages of a pass, and the gradient that it begins with.
WAY = """([kind, settings, way]) => {
    if (problemOf(kind, settings)) return null;
    const plan = planOf(kind, settings, way);
    return {
        names: plan.stages.map(stage => stage.names.output),
        values: plan.stages.map(stage => stage.values),
        arriving: arrivingAt(plan.last), points: plan.layers[0].points, products: plan.products,
        counted: plan.stages.reduce((sum, stage) => sum + stage.values.reduce((all, channel, o) =>
            all + channel.reduce((some, _, p) => some + termsOf(stage, o, p).length, 0), 0), 0),
    };
}"""


def image_outputs(kind: str, settings: dict, x: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Each layer's outputs, by PyTorch's own convolution."""
    stride, dilation = settings["stride"], settings["dilation"]
    groups = {"grouped": settings["groups"], "depthwise": len(x), "separable": len(x)}
    padding = 0 if kind == "pointwise" else settings["padding"]
    if kind == "pointwise":
        dilation = 1
    first, *mix = weights
    size = first.shape[-1]
    before_after = []
    for extent in (x.shape[2], x.shape[1]):  # F.pad begins with the last
        reach = (-(-extent // stride) - 1) * stride + (size - 1) * dilation + 1
        total = max(reach - extent, 0) if padding == "same" else 2 * padding
        before_after += [total // 2, total - total // 2]
    padded = F.pad(x, before_after)[None]
    found = [F.conv2d(padded, first, None, stride, 0, dilation, groups.get(kind, 1))[0]]
    if mix:
        found.append(torch.einsum("oc,chw->ohw", mix[0], found[0]))
    return found


def cloud_outputs(settings: dict, x: Tensor, where, weights: list[Tensor]) -> list[Tensor]:
    """Each layer's outputs ``[N, C]``, with the means of cells by index_add."""
    query, cell, member = where.decode()
    taps = settings["kernel"] ** 3
    slot = query * taps + cell
    sums = torch.zeros(len(x) * taps, x.shape[1], dtype=x.dtype).index_add(0, slot, x[member])
    means = sums / torch.bincount(slot, minlength=len(sums)).clamp(min=1)[:, None]
    means = means.unflatten(0, (len(x), taps))
    first, *mix = weights
    if not mix:
        return [torch.einsum("nmc,ocm->no", means, first.flatten(2))]
    between = torch.einsum("nmc,cm->nc", means, first[:, 0].flatten(1))
    return [between, between @ mix[0].T]


def by_torch(kind: str, settings: dict, arriving: list, points: list | None) -> dict[str, Tensor]:
    """Outputs and gradients by their names, each ``[channel, position]`` as the page lists them."""
    if kind in CLOUD_KINDS:
        x, _, weights = cloud_operands(kind, settings)
    else:
        x, weights = image_operands(kind, settings)
    leaves = [leaf.double().requires_grad_() for leaf in (x, *weights)]
    x, *weights = leaves
    if kind in CLOUD_KINDS:
        where = neighborhood(settings, {"layers": [{"points": points}]})
        outputs = cloud_outputs(settings, x, where, weights)
        gradient = torch.tensor(arriving, dtype=torch.float64).T
    else:
        outputs = image_outputs(kind, settings, x, weights)
        gradient = torch.tensor(arriving, dtype=torch.float64).view_as(outputs[-1])
    inner = outputs[:-1]
    found = torch.autograd.grad(outputs[-1], [*leaves, *inner], gradient)

    def listed(values: Tensor) -> Tensor:
        return values.T if kind in CLOUD_KINDS else values.flatten(1)

    def of_weights(values: Tensor) -> Tensor:
        """Of an image, the rows of all kernels of an output lie beside each other."""
        if values.ndim == 4:
            return values.permute(0, 2, 1, 3).flatten(1)
        return values.flatten(1)

    named = {"y": listed(outputs[-1]), "x.grad": listed(found[0])}
    named |= {f"{n}.grad": of_weights(g) for n, g in zip("wv", found[1:], strict=False)}
    if inner:
        named |= {"z": listed(inner[0]), "z.grad": listed(found[-1])}
        if kind not in CLOUD_KINDS:  # a matrix, which the page has as kernels of one weight
            named["v.grad"] = found[2]
    return {name: values.detach() for name, values in named.items()}


TABLE = [*image_table()[::2], *cloud_table()]


@pytest.mark.parametrize("way", ["forward", "input", "weight"])
def test_every_number_is_pytorchs(open_explain, way):
    page = open_explain()
    checked = dict.fromkeys((*IMAGE_KINDS, *CLOUD_KINDS), 0)
    for kind, settings in TABLE:
        found = page.evaluate(WAY, [kind, settings, way])
        if found is None:
            continue
        expected = by_torch(kind, settings, found["arriving"], found["points"])
        halves = 2 if kind in ("separable", "cellsSeparable") else 1
        names = {
            "forward": ["z", "y"][-halves:],
            "input": ["z.grad", "x.grad"][-halves:],
            "weight": ["v.grad", "w.grad"][-halves:],
        }[way]
        assert found["names"] == names
        assert found["counted"] == found["products"]
        for name, values in zip(found["names"], found["values"], strict=True):
            own = torch.tensor(values, dtype=torch.float64)
            # whole and quarter numbers, means of at most 96 points: sums of up to 3,200 products
            torch.testing.assert_close(own, expected[name], rtol=1e-12, atol=1e-9)
        checked[kind] += 1
    assert min(checked.values()) >= 5, checked


@pytest.mark.parametrize("way", ["input", "weight"])
@pytest.mark.parametrize("kind", [*IMAGE_KINDS, *CLOUD_KINDS])
def test_a_step_back_reads_as_pytorch_names_it(open_explain, kind, way):
    """Indices and value on the page, at steps from the first to the last."""
    page = open_explain()
    given = {"multiplier": 2} if kind == "separable" else {}
    settings = choose(page, kind, way, **given)
    found = page.evaluate(WAY, [kind, settings, way])
    x, *rest = (cloud_operands if kind in CLOUD_KINDS else image_operands)(kind, settings)
    weights = rest[-1]
    expected = by_torch(kind, settings, found["arriving"], found["points"])
    shapes = {"x.grad": x.shape, "w.grad": weights[0].shape, "v.grad": weights[-1].shape}
    steps = page.evaluate("state.plan.steps")
    for step in (0, steps // 3, steps // 2, steps - 1):
        page.evaluate("step => go(step)", step)
        text = page.text_content("#sum .what")
        name, indices = text.removesuffix("]").split("[")
        at = [int(index) for index in indices.split(",")]
        result = page.text_content("#result")
        assert page.text_content("#words").endswith(f"{text} = {result}.")
        if name == "z.grad":
            continue
        values = expected[name]
        if name == "x.grad":
            shaped = values.T if kind in CLOUD_KINDS else values.unflatten(1, shapes[name][1:])
        elif kind in CLOUD_KINDS:
            shaped = values.view(shapes[name])
        elif name == "v.grad":
            shaped = values[..., None, None]
        else:  # [o, row, (channel, column)]
            o, c, k, _ = shapes[name]
            shaped = values.view(o, k, c, k).permute(0, 2, 1, 3)
        assert result == shown(float(shaped[tuple(at)])), (text, result)
    assert page.text_content("#done") == page.text_content("#total")
    assert not page.locator("#compare").is_visible()


def test_the_kernel_beside_a_gradient_is_turned(open_explain):
    """What is drawn over each other meets: the kernel by half a turn, on the gradients around."""
    page = open_explain()
    choose(page, "standard", "input", channelsIn=2, channelsOut=1)
    page.evaluate("go(64 + 27)")
    weight = page.evaluate("state.plan.layers[0].weight[0][1]")
    beside = page.evaluate(
        "besideOf(state.plan.stages[0], 0, placeOf(state.plan, state.step)).values"
    )
    assert beside == [row[::-1] for row in weight[::-1]]
    # A corner has had a part in four outputs only: the other weights are pale.
    page.evaluate("go(64)")
    met = page.evaluate(
        "(({met}) => [0, 1, 2].map(a => [0, 1, 2].map(b => met(a, b))))"
        "(besideOf(state.plan.stages[0], 0, placeOf(state.plan, state.step)))"
    )
    assert met == [[False] * 3, [False, True, True], [False, True, True]]


def test_examples_keep_the_way(open_explain):
    page = open_explain()
    choose(page, "standard", "input")
    page.select_option("#example", examples.EXAMPLES[1][0])
    assert page.evaluate("[state.pass, state.plan.settings.stride]") == ["input", 2]
