"""What is said of a separation: 80 columns, numbers that people read, everything as JSON."""

from __future__ import annotations

import json

from torch import nn

from pointwise.separation import SeparatedLayer, SeparationReport, separate
from pointwise.timing import Ratio

LONG = "backbone.features.denseblock1.denselayer12.conv2"


def report(**changes):
    layers = (
        SeparatedLayer(
            "stem",
            9,
            2,
            "",
            (1_234_567, 900),
            (118_000_000, 21_400_000),
            (1.234, 0.056),
            Ratio(22.0, 20.0, 23.5),
            0.12,
            0.0345,
        ),
        SeparatedLayer(
            LONG, 9, 9, "", (500, 400), (999, 99), (100.0, 123.4), Ratio(0.81, 0.7, 0.9), 0.0, 1.234
        ),
        SeparatedLayer("a", 0, None, "pointwise (1×1) already", (3, 3)),
        SeparatedLayer("b", 0, None, "pointwise (1×1) already", (3, 3)),
        SeparatedLayer("c", 0, None, "depthwise already", (3, 3)),
    )
    given = {"layers": layers, "parameters": (2_000_000, 30_000), "output_error": 0.02,
             "multiply_adds": (500_000_000, 90_000_000), "milliseconds": (12.3, 4.5),
             "gain": Ratio(2.73, 2.51, 3.0)}  # fmt: skip
    return SeparationReport(**given | changes)


def test_a_table_for_people():
    text = str(report())
    assert max(map(len, text.splitlines())) <= 80
    for words in ("2/9", "1.23M→900", "118M→21.4M", "1.2→0.056", "12%", "3.5%", "100→123", "123%",
                  "2.00M→30.0k", "500M→90.0M", "12→4.5", "2%"):  # fmt: skip
        assert words in text, words
    joined = "".join(text.split())
    assert LONG in joined  # over several lines
    flat = " ".join(text.split())
    assert "Left alone, pointwise (1×1) already: a, b." in flat
    assert "Left alone, depthwise already: c." in flat
    assert f"Slower, though the count is lower: {LONG}." in flat
    assert "The whole network is 2.7 (2.5 to 3.0) times as fast as it was." in flat
    slower = str(report(gain=Ratio(0.5, 0.4, 0.8)))
    assert "The whole network takes 2.0 (1.25 to 2.5) times as long as it did." in slower
    same = str(report(gain=Ratio(1.0, 0.9, 1.1)))
    assert "as fast as it was, as far as can be told (1.00 (0.90 to 1.10)" in " ".join(same.split())


def test_a_busy_machine_shows_no_times():
    text = str(report(busy="somebody computes"))
    assert "This machine is busy: somebody computes." in text
    assert "100→123" not in text
    assert "times as" not in text
    assert "Slower" not in text


def test_what_was_not_measured_has_no_column():
    network = nn.Sequential(nn.Conv2d(4, 8, 3))
    text = str(separate(network, rank=1).report)
    assert "multiply-adds" not in text
    assert "ms" not in text
    assert "output" not in text
    assert "parameters" in text
    assert "weight" in text
    with_input = str(separate(network, rank=1, input=(1, 4, 9, 9)).report)
    assert "multiply-adds" in with_input
    assert "output" in with_input


def test_many_that_were_left_alone_are_counted():
    layers = tuple(
        SeparatedLayer(f"layer{i}", 0, None, "depthwise already", (3, 3)) for i in range(9)
    )
    text = str(report(layers=layers))
    assert "Nothing was separated." in text
    assert "layer0, layer1, layer2, layer3 and 5 more." in " ".join(text.split())


def test_json():
    found = json.loads(json.dumps(report().as_dict()))
    assert found["totals"] == {
        "parameters": [2_000_000, 30_000],
        "multiply_adds": [500_000_000, 90_000_000],
        "milliseconds": [12.3, 4.5],
        "gain": {"ratio": 2.73, "low": 2.51, "high": 3.0},
        "output_error": 0.02,
        "batch": 1,
        "busy": "",
    }
    assert found["layers"][1]["gain"]["ratio"] == 0.81
    assert found["layers"][2]["gain"] is None
    assert [layer["name"] for layer in found["layers"]] == ["stem", LONG, "a", "b", "c"]
    assert found["layers"][0]["rank"] == 2
    assert found["layers"][4]["rank"] is None
