"""``compare``: the same job for everyone, counts by formula, times of everyone, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pointwise.comparison import (
    MEANING,
    VARIANTS,
    Comparison,
    Job,
    VariantResult,
    compare,
    compared,
    variants,
)
from pointwise.comparison.compared import LAST, OURS, TORCH
from pointwise.comparison.tables import detail_table, main_table, milliseconds, remarks
from pointwise.timing import Times

JOBS = {
    "the issue's": Job(14, 10, 16, 32),
    "stride 2, 5 × 5": Job(9, 7, 8, 24, kernel=5, stride=2, batch=2),
    "one channel": Job(6, 6, 1, 4),
    "1 × 1": Job(5, 5, 8, 8, kernel=1),
}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", JOBS)
def test_everyone_does_the_same_job(name, norm):
    job = JOBS[name]
    x = torch.randn(job.input_shape, generator=torch.Generator().manual_seed(1))
    size = (-(-job.height // job.stride), -(-job.width // job.stride))
    for kind in VARIANTS:
        parts = kind.parts(job, 4, 6)
        if isinstance(parts, str):
            continue
        ours, plain = variants.made(parts, norm)
        for training in (False, True):
            found = [network.train(training)(x) for network in (ours, plain)]
            assert found[0].shape == (job.batch, job.out_channels, *size), kind.name
            torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
        assert sum(isinstance(part, nn.BatchNorm2d) for part in plain) == norm * len(parts)
        assert not any(name.endswith("conv.bias") for name, _ in ours.named_parameters())


def test_the_kinds_are_what_they_are_called():
    job = Job(8, 8, 16, 32)
    found = {kind.name: kind.parts(job, 4, 6) for kind in VARIANTS}
    assert found["standard"] == [(16, 32, 3, 1, 1, None)]
    assert found["depthwise"] == [(16, 32, 3, 1, 16, None)]
    assert found["pointwise"] == [(16, 32, 1, 1, 1, None)]
    assert found["separable"] == [(16, 16, 3, 1, 16, None), (16, 32, 1, 1, 1, None)]
    assert found["shift"] == [(16, 32, 3, 1, "shift", None)]
    assert found["grouped"] == [(16, 32, 3, 1, 4, None)]
    assert found["bottleneck"] == [
        (16, 8, 1, 1, 1, "relu"), (8, 8, 3, 1, 1, "relu"), (8, 32, 1, 1, 1, None)]  # fmt: skip
    assert found["inverted residual"] == [
        (16, 96, 1, 1, 1, "relu6"),
        (96, 96, 3, 1, 96, "relu6"),
        (96, 32, 1, 1, 1, None),
    ]
    assert set(MEANING) == set(found)
    classic = {kind.name: kind.parts(Job(224, 224, 3, 64), 4, 6) for kind in VARIANTS}
    assert classic["depthwise"] == "each channel has its own results, and 64 is no multiple of 3"
    assert classic["grouped"] == "4 groups do not go into 3 and 64 channels"
    # As many groups as go into both.
    assert variants._grouped(Job(8, 8, 6, 4), 4, 6) == [(6, 4, 3, 1, 2, None)]


def test_counts_are_those_of_the_formulas():
    found = compare(Job(10, 12, 16, 32), samples=1)
    pixels = 10 * 12
    expected = {
        "standard": 16 * 32 * 9,
        "depthwise": 32 * 9,
        "pointwise": 16 * 32,
        "separable": 16 * 9 + 16 * 32,
        "shift": 16 * 32,
        "grouped": 16 * 32 * 9 // 4,
        "bottleneck": 16 * 8 + 8 * 8 * 9 + 8 * 32,
        "inverted residual": 16 * 96 + 96 * 9 + 96 * 32,
    }
    assert {row.kind: row.parameters for row in found.rows} == expected
    assert {row.kind: row.multiply_adds for row in found.rows} == {
        kind: pixels * count for kind, count in expected.items()
    }
    assert found.by_count(found.row("separable")) == pytest.approx(1 / (1 / 32 + 1 / 9))
    twice = compare(Job(10, 12, 16, 32, batch=2), samples=1)
    assert twice.row("standard").multiply_adds == 2 * pixels * expected["standard"]


def test_everyone_is_timed_forward_and_backward(monkeypatch):
    seen = []
    found = compare(Job(8, 8, 4, 8), samples=7, norm=True,
                    progress=lambda *given: seen.append(given))  # fmt: skip
    assert [row.kind for row in found.rows] == [kind.name for kind in VARIANTS]
    for row in found.rows:
        for measured in (row.forward, row.backward):
            assert set(measured) == {OURS, TORCH, LAST}
            assert all(len(times.milliseconds) == 7 for times in measured.values())
            assert all(0 < times.min <= times.max < 1000 for times in measured.values())
    assert [what for what, _, _ in seen] == ["forward"] * 7 + ["backward"] * 7
    assert found.impossible == {}
    assert found.threads == torch.get_num_threads()


def test_backward_gives_the_gradients_of_input_and_weights():
    ours, plain = variants.made([(4, 4, 3, 1, 4, "relu"), (4, 8, 1, 1, 1, None)], norm=True)
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    run, other = (compared._backward(network, x) for network in (ours, plain))
    for _ in range(2):  # again and again
        found, expected = run(), other()
        assert len(found) == len(expected) == 1 + 2 + 4
        assert found[0].shape == x.shape
        torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-4)
        weights = [gradient for gradient in found if gradient.dim() == 4]
        others = [gradient for gradient in expected if gradient.dim() == 4]
        torch.testing.assert_close(weights, others, rtol=1e-3, atol=1e-4)


def test_what_is_not_correct_is_not_timed(monkeypatch):
    made = variants.made

    def wrong(parts, norm):
        ours, plain = made(parts, norm)
        with torch.no_grad():
            plain[0].weight.mul_(1.01)
        return ours, plain

    monkeypatch.setattr(compared, "made", wrong)
    with pytest.raises(ValueError, match=r"standard is not timed, since ours differs by .* from"):
        compare(Job(8, 8, 4, 8), samples=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 4}, "kernel must be odd, so that all ways give images of one size, got 4"),
        ({"kernel": 0}, "kernel must be odd"),
        ({"kernel": 3.0}, "kernel must be odd"),
        ({"stride": 0}, "stride must be"),
        ({"batch": -1}, "batch must be"),
        ({"in_channels": 0}, "in_channels must be"),
    ],
)
def test_jobs_that_are_none_are_refused(options, message):
    given = {"height": 8, "width": 8, "in_channels": 4, "out_channels": 8} | options
    with pytest.raises(ValueError, match=message):
        Job(**given)


def test_options_are_checked():
    for name in ("groups", "expand"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            compare(Job(8, 8, 4, 8), **{name: 0})


# --- what is said ---------------------------------------------------------------------------------


def times(*milliseconds):
    return Times(milliseconds)


def made_up(slow=1.0, rounds=10, busy="") -> Comparison:
    def row(kind, count, ours, plain, last):
        mine = times(*[ours] * (rounds - 2), ours + 1, ours)
        measured = {OURS: mine, TORCH: times(*[plain] * rounds), LAST: times(*[last] * rounds)}
        return VariantResult(kind, count // 10, count, measured, measured)

    rows = (
        row("standard", 1_000_000_000, 123.0, 100.0, 90.0),
        row("separable", 100_000_000, 12.3 * slow, 20.0, 30.0),
        row("inverted residual", 2_000_000_000, 246.0, 180.0, 200.0),
    )
    why = {"grouped": "4 groups do not go into 3 and 64 channels"}
    return Comparison(Job(224, 224, 3, 64, batch=16), rows, why, 2, busy)


def text_of(*parts) -> str:
    from rich.console import Console

    console = Console(width=80, highlight=False, color_system=None)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def test_tables_of_80_columns():
    found = made_up()
    text = text_of(main_table(found), detail_table(found))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "224×224×3 to 64 channels, 3×3, 16 images" in text
    line = next(line for line in text.splitlines() if line.startswith("separable"))
    assert line.split() == ["separable", "10.0M", "100M", "12.3", "20.0", "12.3", "20.0", "10.0",
                            "10.0", "4.50"]  # fmt: skip
    lines = [line for line in text.splitlines() if "ours backward" in line]
    assert lines[0].split() == ["ours", "backward", "123", "123", "124"]
    assert " ".join(lines[1].split()) == "ours backward 12.3 12.3 12.8 10.0"
    assert list(remarks(found)) == ["No grouped: 4 groups do not go into 3 and 64 channels."]
    assert list(remarks(made_up(slow=15)))[1] == (
        "separable takes 1.50 times as long as standard in ours, with 1/10 of the multiply-adds."
    )
    assert len(list(remarks(made_up(slow=15, rounds=5)))) == 1  # five rounds show nothing


def test_a_busy_machine_gives_no_verdict():
    found = made_up(slow=15, busy="other programs use 1.4 of its 2 processors")
    assert list(remarks(found))[1] == (
        "This machine is busy: other programs use 1.4 of its 2 processors. Times taken now decide"
        " nothing; measure again when it is idle."
    )
    assert len(list(remarks(found))) == 2
    text = text_of(main_table(found), detail_table(found))
    line = next(line for line in text.splitlines() if line.startswith("separable"))
    assert line.split()[-3:] == ["10.0", "–", "–"]
    assert " to " not in text.partition("\nms ")[2]
    assert json.loads(json.dumps(found.as_dict()))["busy"] == found.busy


def test_numbers_in_tables():
    assert [milliseconds(x) for x in (0.1234, 1.234, 12.34, 1234.5)] == [
        "0.123", "1.23", "12.3", "1234"]  # fmt: skip


def test_json():
    found = json.loads(json.dumps(made_up().as_dict()))
    assert found["in"] == [224, 224, 3]
    assert (found["out"], found["batch"], found["kernel"], found["stride"]) == (64, 16, 3, 1)
    first, second, _ = found["rows"]
    assert set(first["forward"]) == {"ours", "torch", "torch_channels_last"}
    assert set(first["backward"]["ours"]) == {
        "mean", "std", "min", "max", "median", "p95", "p99", "runs"}  # fmt: skip
    assert second["gain"]["by_count"] == 10
    assert second["gain"]["forward_ours"] == {"ratio": 10, "low": 10, "high": 10}
    assert second["gain"]["backward_torch"]["ratio"] == 5
    assert found["busy"] == ""
    assert found["impossible"] == made_up().impossible


def test_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    from pointwise.report.comparison import write_comparison

    write_comparison([made_up(), made_up()], tmp_path / "two.png")
    write_comparison([made_up()], tmp_path / "one.png")
    sizes = [Image.open(tmp_path / name).size for name in ("one.png", "two.png")]
    assert sizes[0][0] == sizes[1][0] == 950
    assert sizes[1][1] == pytest.approx(2 * sizes[0][1], abs=2)
    pixels = Image.open(tmp_path / "one.png").convert("RGB").getcolors(1 << 24)
    colors = {color for _, color in pixels}
    assert {(0, 114, 178), (213, 94, 0), (154, 154, 154)} <= colors
    write_comparison([made_up()], tmp_path / "one.svg")
    # Letters are shapes, with what they say in a comment beside them.
    assert "inverted residual" in (tmp_path / "one.svg").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="there is nothing to draw"):
        write_comparison([], tmp_path / "none.png")
