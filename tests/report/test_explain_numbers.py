"""The page's own arithmetic is the library's: outputs, shapes, neighbours and counts."""

from __future__ import annotations

import pytest
import torch
from explain_pages import (
    CLOUD_KINDS,
    IMAGE_KINDS,
    PLAN,
    cloud_operands,
    convolve,
    fitting,
    image_operands,
    library_outputs,
)

import pointwise
from pointwise.report.explain import examples, material

EPS = torch.finfo(torch.float64).eps


def assert_equal(found, expected: torch.Tensor, bound: torch.Tensor, terms: int) -> None:
    """Equal but for rounding: a sum of K products is off by at most K·eps·Σ|product|, and the
    library may add in another order, with another error of that size."""
    found = torch.tensor(found, dtype=torch.float64)
    assert found.shape == expected.shape
    assert bool(((found - expected).abs() <= 2 * (terms + 2) * EPS * bound).all())


def test_outputs_on_images_are_the_librarys(explain_plans):
    checked = fitting(explain_plans, IMAGE_KINDS)
    assert len(checked) > 70
    for kind, settings, plan in checked:
        assert plan.get("example") is None
        expected = library_outputs(kind, settings, plan)
        bounds = library_outputs(kind, settings, plan, absolute=True)
        assert len(plan["layers"]) == len(expected)
        terms = 0
        for layer, output, bound in zip(plan["layers"], expected, bounds, strict=True):
            terms += torch.tensor(layer["weight"])[0].numel()  # errors of the first half go on
            assert_equal(layer["values"], output, bound, terms)


def test_shapes_on_images_are_the_librarys(explain_plans):
    for kind, settings, plan in fitting(explain_plans, IMAGE_KINDS):
        x, weights = image_operands(kind, settings)
        _, output = convolve(kind, settings, x, weights)
        last = plan["layers"][-1]
        shape = [len(last["values"]), last["rows"], last["columns"]]
        assert shape == list(output.shape), (kind, settings)


def test_settings_that_the_library_refuses_are_the_ones_that_the_page_refuses(explain_plans):
    refused = 0
    for kind, settings, plan in explain_plans:
        if kind in CLOUD_KINDS:
            assert "problem" not in plan
            continue
        x, weights = image_operands(kind, settings)
        try:
            convolve(kind, settings, x, weights)
        except ValueError as error:
            assert "too small for a kernel" in str(error)  # noqa: PT017
            assert "pixels" in plan["problem"]
            refused += 1
        else:
            assert "problem" not in plan, plan
    assert refused > 5


def test_inputs_and_weights_are_cut_from_the_same_material(explain_plans):
    for kind, settings, plan in explain_plans:
        if "problem" in plan:
            continue
        if kind in CLOUD_KINDS:
            x, points, weights = cloud_operands(kind, settings)
            assert plan["layers"][0]["points"] == points.tolist()
        else:
            x, weights = image_operands(kind, settings)
        assert plan["layers"][0]["x"] == x.tolist()
        for layer, weight in zip(plan["layers"], weights, strict=True):
            assert torch.tensor(layer["weight"]).flatten().tolist() == weight.flatten().tolist()


def test_outputs_on_clouds_are_the_librarys(explain_plans):
    checked = fitting(explain_plans, CLOUD_KINDS)
    assert len(checked) == 30
    for kind, settings, plan in checked:
        expected = library_outputs(kind, settings, plan)
        bounds = library_outputs(kind, settings, plan, absolute=True)
        terms = settings["points"]  # of a mean
        for layer, output, bound in zip(plan["layers"], expected, bounds, strict=True):
            terms += torch.tensor(layer["weight"])[0].numel()
            assert_equal(layer["values"], output, bound, terms)


def test_every_example_is_what_the_library_computes(open_explain):
    page = open_explain()
    for name, kind, given in examples.EXAMPLES:
        settings = examples.settings_of(kind, given)
        plan = page.evaluate(PLAN, [kind, settings])
        assert plan["example"] == name
        expected = library_outputs(kind, settings, plan)
        assert len(expected) == len(plan["layers"])
        for layer, output in zip(plan["layers"], expected, strict=True):
            own = torch.tensor(layer["values"], dtype=torch.float64)
            # sums of at most 108 products and means of 60 features, of numbers up to a thousand
            torch.testing.assert_close(own, output, rtol=0, atol=200 * 1000 * EPS)


def test_any_numbers_not_only_the_pages(open_explain):
    """Random inputs and weights through the page's functions, in both halves at once."""
    page = open_explain()
    generator = torch.Generator().manual_seed(2)
    for stride, padding, dilation, groups in [
        (1, "same", 1, 1),
        (2, "same", 2, 3),
        (3, 2, 1, 6),
        (2, 0, 1, 2),
    ]:
        x = torch.randn(6, 9, 11, generator=generator, dtype=torch.float64)
        weight = torch.randn(6, 6 // groups, 3, 3, generator=generator, dtype=torch.float64)
        how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        found = page.evaluate(
            "([x, w, how]) => outputsOf(imageLayer(x, w, how))", [x.tolist(), weight.tolist(), how]
        )
        expected = pointwise.conv2d(x, weight, **how).flatten(1)
        bound = pointwise.conv2d(x.abs(), weight.abs(), **how).flatten(1)
        assert_equal(found, expected, bound, 54)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_cells_are_the_librarys_also_for_points_on_their_borders(open_explain, kernel, dilation):
    axes = [0.1 * i for i in range(5)]
    lattice = [[x, y, z] for x in axes for y in axes for z in axes]
    found = open_explain().evaluate(
        "([points, size, k, d]) => cellTable(points, size, k, d)", [lattice, 0.2, kernel, dilation]
    )
    rows = [
        (query, entry["cell"], point)
        for query, cells in enumerate(found)
        for entry in cells
        for point in entry["members"]
    ]
    cloud = pointwise.PointCloud(torch.tensor(lattice, dtype=torch.float64))
    expected = torch.stack(cloud.neighborhood(0.2, kernel, dilation).decode(), dim=1)
    assert rows == [tuple(row) for row in expected.tolist()]


def test_same_padding_is_the_librarys(open_explain):
    from pointwise.functional.padding import resolve

    cases = [
        (n, k, s, d)
        for n in range(1, 12)
        for k in (1, 2, 3, 4, 7)
        for s in (1, 2, 3)
        for d in (1, 2)
    ]
    found = open_explain().evaluate(
        "cases => cases.map(([n, k, s, d]) => edgesOf('same', n, k, s, d))", cases
    )
    assert found == [resolve("test", "same", [n], [k], [s], [d]) for n, k, s, d in cases]


def test_the_material_reaches_as_far_as_the_fields(open_explain):
    page = open_explain()
    limits = page.evaluate(
        "[...document.querySelectorAll('#settings input')]"
        ".map(input => [input.closest('.fields').id, input.name, +input.max])"
    )
    most = {(where, name): high for where, name, high in limits}
    image = {"height": material.SIZE, "width": material.SIZE, "kernel": material.KERNEL,
             "channelsIn": material.CHANNELS, "channelsOut": material.CHANNELS,
             "multiplier": material.MULTIPLIER, "groups": material.CHANNELS}  # fmt: skip
    cloud = {"points": material.POINTS, "kernel": max(material.CLOUD_KERNELS),
             "channelsIn": material.CLOUD_CHANNELS,
             "channelsOut": material.CLOUD_CHANNELS}  # fmt: skip
    for name, high in image.items():
        assert most["image-fields", name] == high
    for name, high in cloud.items():
        assert most["cloud-fields", name] == high
