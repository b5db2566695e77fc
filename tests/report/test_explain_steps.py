"""What stands in the page at a step is what the library computes for it."""

from __future__ import annotations

import pytest
import torch
from explain_pages import (
    CLOUD_KINDS,
    IMAGE_KINDS,
    PLAN,
    choose,
    closed_formula,
    library_outputs,
    shown,
)


@pytest.mark.parametrize("kind", [*IMAGE_KINDS, *CLOUD_KINDS])
def test_the_numbers_in_the_page_are_the_librarys(open_explain, kind):
    """Read from the page as a reader does, at steps from the first to the last."""
    page = open_explain()
    given = {"multiplier": 2} if kind in ("depthwise", "separable") else {}
    given |= {"dilation": 2} if kind == "cells" else {}
    settings = choose(page, kind, **given)
    plan = page.evaluate(PLAN, [kind, settings])
    outputs = library_outputs(kind, settings, plan)
    flat = torch.cat([output.flatten() for output in outputs])
    parameters, multiplications = closed_formula(kind, settings, plan)
    for step in (0, 1, len(flat) // 3, len(flat) // 2, len(flat) - 2, len(flat) - 1):
        page.evaluate("step => go(step)", step)
        text = page.evaluate(
            "Object.fromEntries(['result', 'done', 'total', 'parameters', 'moved', 'bytes',"
            " 'words', 'step-shown'].map(id => [id, document.getElementById(id).textContent]))"
        )
        expected = shown(float(flat[step]))
        assert text["result"] == expected
        assert text["words"].endswith(f" = {expected}.")
        assert text["words"].startswith(f"Step {step + 1:,} of {len(flat):,}")
        assert text["step-shown"] == f"{step + 1:,} of {len(flat):,}"
        assert text["done"] == f"{plan['multiplications'][step]:,}"
        assert text["total"] == f"{multiplications:,}"
        assert text["parameters"] == f"{parameters:,}"
        assert text["bytes"] == f"{plan['bytes']:,}"
    assert text["done"] == text["total"]
    assert text["moved"] == text["bytes"]
    shape = page.text_content("#shape")
    last = outputs[-1].T if kind in CLOUD_KINDS else outputs[-1].unflatten(1, (8, 8))
    assert shape == str(list(last.shape))


@pytest.mark.parametrize("kind", [*IMAGE_KINDS, *CLOUD_KINDS])
def test_the_products_in_the_page_add_up_to_the_output(open_explain, kind):
    page = open_explain()
    choose(page, kind)
    page.evaluate("go(Math.floor(0.4 * state.plan.steps))")
    page.click("#numbers summary")
    page.wait_for_selector("#products tbody tr", state="attached")  # written when it has opened
    products = [
        number(text) for text in page.locator("#products tbody td:last-child").all_text_contents()
    ]
    total = number(page.text_content("#products tfoot td"))
    # each number is rounded to thousandths
    assert sum(products) == pytest.approx(total, abs=0.0005 * (len(products) + 1))
    assert total == number(page.text_content("#result"))
    written = page.locator("#sum .product").all_text_contents()
    more = page.locator("#sum .more")
    assert len(written) + (int(more.text_content().split()[1]) if more.count() else 0) == len(
        products
    )
    for text, product in zip(written, products, strict=False):
        factors = [number(part.strip("()")) for part in text.split(" × ")]
        # rounding of a mean to thousandths, times a weight of at most 10
        assert factors[0] * factors[1] == pytest.approx(product, abs=0.006)


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))
