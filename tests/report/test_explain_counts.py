"""The page counts as the library does: parameters, multiplications, bytes, and the comparison."""

from __future__ import annotations

import numpy as np
import pytest
from explain_pages import CLOUD_KINDS, IMAGE_KINDS, PLAN, closed_formula, fitting, neighborhood

from pointwise.report.explain import examples


def test_counts_follow_from_the_sizes(explain_plans):
    for kind, settings, plan in fitting(explain_plans, (*IMAGE_KINDS, *CLOUD_KINDS)):
        parameters, multiplications = closed_formula(kind, settings, plan)
        assert plan["cost"]["parameters"] == parameters
        assert plan["cost"]["multiplications"] == multiplications
        assert plan["multiplications"][-1] == multiplications
        steps = np.diff([0, *plan["multiplications"]])
        assert (
            len(steps)
            == plan["steps"]
            == sum(len(y) * len(y[0]) for y in (l["values"] for l in plan["layers"]))
        )
        assert (steps > 0).all()


def counted(kind: str, settings: dict, plan: dict):
    """The same by ``pointwise.costs``."""
    costs = pytest.importorskip("pointwise.costs")
    c_in, c_out = settings["channelsIn"], settings["channelsOut"]
    if kind in CLOUD_KINDS:
        where = neighborhood(settings, plan)
        if kind == "cells":
            return costs.cell_conv(where, c_in, c_out)
        return costs.cell_separable_conv(where, c_in, c_out, joined=True)
    size = (settings["height"], settings["width"])
    how = {key: settings[key] for key in ("stride", "padding", "dilation")}
    kernel, multiplier = settings["kernel"], settings["multiplier"]
    return {
        "standard": lambda: costs.convolution(size, c_in, c_out, kernel, **how),
        "grouped": lambda: costs.grouped(size, c_in, c_out, settings["groups"], kernel, **how),
        "depthwise": lambda: costs.depthwise(size, c_in, kernel, multiplier, **how),
        "pointwise": lambda: costs.pointwise(size, c_in, c_out, stride=settings["stride"]),
        "separable": lambda: costs.depthwise_separable(
            size, c_in, c_out, kernel, multiplier=multiplier, joined=True, **how
        ),
    }[kind]()


def test_counts_are_those_of_the_package(explain_plans):
    for kind, settings, plan in fitting(explain_plans, (*IMAGE_KINDS, *CLOUD_KINDS)):
        expected = counted(kind, settings, plan)
        assert plan["cost"]["parameters"] == expected.parameters
        assert plan["cost"]["multiplications"] == expected.multiply_adds
        assert plan["bytes"] == expected.bytes


def test_bytes_are_every_number_once(open_explain):
    page = open_explain()
    plan = page.evaluate(PLAN, ["standard", examples.IMAGE])
    assert plan["bytes"] == 4 * (4 * 64 + 4 * 4 * 9 + 4 * 64)
    plan = page.evaluate(PLAN, ["separable", examples.IMAGE])
    assert plan["bytes"] == 4 * (4 * 64 + 4 * 9 + 16 + 4 * 64)
    # Every second pixel of every second row is read by a pointwise convolution with stride 2.
    plan = page.evaluate(PLAN, ["pointwise", {**examples.IMAGE, "stride": 2}])
    assert plan["bytes"] == 4 * (4 * 16 + 16 + 4 * 16)
    settings = examples.CLOUD
    plan = page.evaluate(PLAN, ["cells", settings])
    where = neighborhood(settings, plan)
    table = 8 * len(where.row_start) + 4 * len(where.pairs)
    assert plan["bytes"] == table + 4 * (60 * 2 + 3 * 2 * 27 + 60 * 3)


def test_the_comparison_counts_every_convolution(explain_plans):
    """The row of another convolution is what the page shows once that one is chosen."""
    for _, settings, plan in fitting(explain_plans, ("standard", "separable")):
        rows = {row["kind"]: row for row in plan["compared"]}
        assert list(rows) == ["standard", "grouped", "separable", "depthwise", "pointwise"]
        same_job = {**settings, "groups": plan["groups"]}
        for name in ("standard", "grouped", "separable", "depthwise"):
            parameters, multiplications = closed_formula(name, same_job, plan)
            assert (rows[name]["parameters"], rows[name]["multiplications"]) == (
                parameters,
                multiplications,
            )
        points = len(plan["layers"][-1]["values"][0])
        assert (
            rows["pointwise"]["multiplications"]
            == settings["channelsIn"] * settings["channelsOut"] * points
        )


def test_the_classic_examples(open_explain):
    """224×224×3 to 64, and 12×12×3 to 8×8×256 by 5×5 kernels, as the literature counts them."""
    page = open_explain()
    rows = (
        "Object.fromEntries(costsOf(largeJob(LARGE_IMAGES[N], state.plan.job))"
        ".map(cost => [cost.kind, cost]))"
    )
    photo = page.evaluate(rows.replace("N", "0"))
    assert photo["standard"]["parameters"] == 64 * 3 * 9
    assert photo["pointwise"]["multiplications"] == 9_633_792
    small = page.evaluate(rows.replace("N", "3"))
    assert small["standard"]["multiplications"] == 1_228_800
    assert small["separable"]["multiplications"] == 53_952
    layer = page.evaluate(rows.replace("N", "1"))
    share = layer["separable"]["multiplications"] / layer["standard"]["multiplications"]
    assert share == pytest.approx(1 / 128 + 1 / 9)
    cloud = page.evaluate(
        "costOf('standard', largeJob(LARGE_CLOUDS[0], planOf('cells', DATA.cloud.start).job))"
    )
    assert cloud["multiplications"] == 2048 * 27 * 81
