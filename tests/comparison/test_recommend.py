"""What ``compare`` recommends: what does the whole job, within the budget, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pointwise.comparison import (
    VARIANTS,
    Budget,
    Comparison,
    Job,
    VariantResult,
    budget_of,
    recommend,
)
from pointwise.comparison.compared import LAST, OURS, TORCH
from pointwise.comparison.recommend import MIXES, SEES
from pointwise.timing import Times

FIGURES = {  # parameters, multiply-adds, milliseconds
    "standard": (147_000, 462e6, 6.32),
    "depthwise": (1_150, 3.6e6, 0.43),
    "pointwise": (16_400, 51e6, 0.92),
    "separable": (17_500, 55e6, 1.07),
    "shift": (16_400, 51e6, 1.72),
    "grouped": (36_900, 116e6, 3.58),
    "bottleneck": (17_400, 54.6e6, 1.18),
    "inverted residual": (204_000, 638e6, 11.2),
}


def made_up(busy="", **milliseconds) -> Comparison:
    rows = []
    for kind, (parameters, products, usual) in FIGURES.items():
        median = milliseconds.get(kind, usual)
        times = Times(tuple(median * part for part in (0.98, 1, 1.01, 0.99, 1.02, 1, 1, 0.99)))
        measured = dict.fromkeys((OURS, TORCH, LAST), times)
        rows.append(VariantResult(kind, parameters, int(products), measured, measured))
    return Comparison(Job(56, 56, 128, 128), tuple(rows), {}, 2, busy)


def said(found, *budgets) -> str:
    return "\n".join(recommend(found, [budget_of(each) for each in budgets]).lines())


def test_every_kind_is_known():
    assert set(MIXES) == set(SEES) == {kind.name for kind in VARIANTS}


def test_without_a_budget_the_fastest_that_does_the_whole_job():
    text = said(made_up())
    assert text.startswith("Recommended: separable\n")
    assert "mixes all channels, sees every channel's 3×3 neighbours" in text
    assert "17.5 k parameters, where the standard one has 147 k" in text
    assert "1.07 ms: 5.9 times as fast as the standard one" in text
    for part in ("depthwise mixes no channels", "pointwise sees no neighbours",
                 "grouped mixes within groups only"):  # fmt: skip
        assert part in text


def test_few_rounds_cannot_tell():
    found = made_up()
    rows = [
        replace(row, forward=dict.fromkeys(row.forward, Times((1.0, 1.1)))) for row in found.rows
    ]
    few = replace(found, rows=tuple(rows))
    assert said(few) == ("No recommendation\n  2 rounds cannot tell which is the fastest; 6 can")
    assert said(few, "20k-parameters").startswith("Recommended: separable\n")  # which is counted


def test_a_kernel_of_one_pixel_has_no_neighbours_to_miss():
    found = replace(made_up(), job=Job(56, 56, 128, 128, kernel=1))
    text = said(found)
    assert text.startswith("Recommended: pointwise\n")
    assert "mixes all channels, and sees one pixel at a time" in text
    assert "sees no neighbours" not in text


def test_of_those_that_are_as_fast_most_weights():
    text = said(made_up(standard=1.07))
    assert text.startswith("Recommended: standard\n")
    assert "separable is as fast, as far as could be measured, with fewer weights" in text


@pytest.mark.parametrize(
    ("budgets", "kind"),
    [
        (["7ms"], "standard"),
        (["20ms"], "inverted residual"),
        (["2ms"], "separable"),
        (["1.15 ms"], "separable"),
        (["30%-time"], "separable"),
        (["17k-parameters"], "shift"),
        (["17.45k params"], "bottleneck"),
        (["100M-multiply-adds"], "separable"),
        (["100%-multiply-adds"], "standard"),
        (["50%-parameters", "1900us"], "separable"),
    ],
)
def test_within_a_budget_most_weights(budgets, kind):
    text = said(made_up(), *budgets)
    assert text.startswith(f"Recommended: {kind}\n")
    assert "keeps to " in text


def test_what_is_beyond_the_budget_is_named():
    text = said(made_up(), "2ms")
    assert "beyond the budget: standard (6.42 ms), inverted residual (11.4 ms)" in text
    assert "of all that do, it has most weights" in text
    assert "keeps to 44.1 k parameters (30 % of the standard one's)" in said(
        made_up(), "30%-parameters"
    )


def test_a_budget_that_nothing_keeps_to():
    text = said(made_up(), "0.2ms")
    assert text.startswith("No recommendation\n")
    assert "keeps to 0.200 ms; separable comes nearest, with 1.09 ms" in text
    both = said(made_up(), "17k-parameters", "1.2ms")
    assert "each of 17.0 k parameters and 1.20 ms can be kept to, but not all by one kind" in both


def test_a_busy_machine_decides_by_counts_only():
    why = "other programs use 1.4 of its 2 processors"
    text = said(made_up(busy=why))
    assert text.startswith("No recommendation\n")
    assert f"this machine is busy, and its times decide nothing: {why}" in text
    assert said(made_up(busy=why), "2ms").startswith("No recommendation\n")
    counted = said(made_up(busy=why), "20k-parameters")
    assert counted.startswith("Recommended: separable\n")
    assert " ms" not in counted


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("2ms", Budget(2, "time")),
        ("250us", Budget(0.25, "time")),
        ("1.5 s", Budget(1500, "time")),
        ("20k-parameters", Budget(20_000, "parameters")),
        ("300 params", Budget(300, "parameters")),
        ("50M multiply-adds", Budget(50e6, "multiply-adds")),
        ("2GMACs", Budget(2e9, "multiply-adds")),
        ("30%-time", Budget(0.3, "time", share=True)),
        ("25 % parameters", Budget(0.25, "parameters", share=True)),
    ],
)
def test_budgets_as_people_write_them(text, budget):
    assert budget_of(text) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "--budget must be a number and what it is of, such as 2ms, 20k-par.*got 'fast'"),
        ("-2ms", "--budget must be a number"),
        ("0ms", "must be more than nothing, got '0ms'"),
        ("2", "--budget counts milliseconds, parameters or multiply-adds, as in 2ms.*got '2'"),
        ("2 apples", "got '2 apples'"),
        ("2-time", "got '2-time'"),
        ("20%", "got '20%'"),
        ("20%-k-parameters", "counts milliseconds"),
    ],
)
def test_what_is_no_budget_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        budget_of(text)
