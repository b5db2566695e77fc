"""``bench accelerate --models``: kinds are found by name, and everyone is compared with PyTorch."""

from __future__ import annotations

import importlib
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accelerate as contest
import field
import kept
from field_networks import made
from frame import OURS

command = importlib.import_module("pointwise.cli.bench")
ISSUE = {
    "ghostnet", "vocoder", "tcn", "wavenet", "efficientformer", "fastvit", "mobileone", "repvgg",
    "convnext_v2", "shufflenet", "yolo", "lr_aspp", "ssdlite", "fcos", "conv3d", "crnn", "vit_s",
    "swin_t", "unet", "edsr", "espcn", "style", "resnet_groups",
}  # fmt: skip
PEERS = set(field.WHO) - {contest.EAGER, OURS}


@pytest.fixture
def small(monkeypatch):
    """A convolution, of which half stays PyTorch's, and nobody but PyTorch and us to run it."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LogSoftmax(1))
    monkeypatch.setattr(field, "KINDS", {"toy": lambda size=9: made(model, 3, size, size)})
    monkeypatch.setattr(field.runtimes, "missing", lambda **_: dict.fromkeys(PEERS, "not here"))
    monkeypatch.setattr(field.mobile_runtimes, "missing", dict)
    return model


def test_all_kinds_are_there():
    assert set(field.KINDS) >= ISSUE
    assert set(field.SMALL) <= set(field.KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in field.KINDS if name not in field.contest.PLAIN])
def test_kinds_give_numbers_that_depend_on_the_input(name):
    torch.manual_seed(0)
    model, x = field.chosen(name, quick=True)[name]()
    assert not any(part.training for part in model.modules())
    with torch.no_grad():
        one, other = model(x), model(x + 0.1 * torch.randn_like(x))
    assert one.isfinite().all()
    assert one.std() > 0
    assert not torch.allclose(one, other, atol=1e-6)


def test_ghosts_are_the_same_joined_and_written():
    torch.manual_seed(0)
    joined = field.field_mobile.Ghost(8, 13).eval()
    x = torch.randn(2, 8, 5, 5)
    written = field.field_mobile.Ghost(8, 13, writes=True).eval()
    written.load_state_dict(joined.state_dict())
    with torch.no_grad():
        assert joined(x).shape == (2, 13, 5, 5)
        assert torch.equal(joined(x), written(x))


def test_windows_are_put_together_again():
    x = torch.arange(2 * 8 * 12 * 3.0).view(2, 8, 12, 3)
    windows = field.field_attention._windows(x, 4)
    assert windows.shape == (2 * 6, 16, 3)
    assert torch.equal(windows[1].view(4, 4, 3), x[0, :4, 4:8])
    assert torch.equal(field.field_attention._whole(windows, 4, 8, 12), x)


def test_names_choose():
    assert list(field.chosen("all")) == list(field.KINDS)
    assert list(field.chosen("unet")) == ["unet"]
    assert list(field.chosen("tcn, *vit*")) == ["tcn", "fastvit", "vit_s"]
    assert list(field.chosen("ghost")) == ["ghostnet", "ghostnet_writes"]
    with pytest.raises(ValueError, match=r"no kind is called 'nothing': all, timm, .*tcn"):
        field.chosen("nothing")
    with pytest.raises(ValueError, match="names no model; there are all"):
        field.chosen(" ,")


def test_a_file_s_function_is_a_model_too(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "import torch\ndef small():\n    return torch.nn.Conv1d(2, 3, 3), torch.rand(1, 2, 9)\n"
    )
    ((name, make),) = field.chosen(f"{own}:small").items()
    model, inputs = make()
    assert name == f"{own}:small"
    assert (type(model).__name__, inputs[0].shape) == ("Conv1d", (1, 2, 9))


def test_a_model_is_measured_and_kept(small, tmp_path, capsys):
    path = tmp_path / "field.json"
    command.bench("accelerate", json=path, rounds=6, quick=False, models="toy")
    found = json.loads(path.read_text())
    record = found["cases"]["toy"]
    assert record["inputs"] == ["1×3×9×9"]
    assert record["parameters"] == 8 * 3 * 9 + 8
    assert (record["kernels"], record["calls"]) == (1, 2)
    assert sum(record["plain"].values()) == 1
    assert 0 < record["share_of_pytorch"] < 1
    assert record["why_not"] == {}
    assert set(record["who"]) == {contest.EAGER, OURS}
    ours, eager = record["who"][OURS], record["who"][contest.EAGER]
    assert 0 < ours["min_ms"] <= ours["median_ms"] <= ours["p95_ms"]
    assert eager["error"] == 0
    assert ours["error"] < 1e-5
    assert eager["ratio"]["low"] <= eager["ratio"]["ratio"] <= eager["ratio"]["high"]
    assert ours["build_s"] > 0
    said = capsys.readouterr().out
    assert "1 of 2 calls are kernels" in said
    assert max(map(len, said.splitlines())) <= 80


def test_what_is_there_is_not_measured_again(small, tmp_path, monkeypatch, capsys):
    path = tmp_path / "field.json"
    contest.main(path, 1, models="toy")
    before = path.read_text()
    with monkeypatch.context() as changed:
        changed.setattr(field, "measured", lambda *_: pytest.fail("measured again"))
        contest.main(path, 1, models="toy", resume=True)
    assert path.read_text() == before
    monkeypatch.setattr(field, "measured", lambda *_: {"why_not": {OURS: "no"}, "who": {},
                                                       "inputs": [], "busy": ""})  # fmt: skip
    with pytest.raises(ValueError, match="bench: toy: accelerate fails; why is said above"):
        contest.main(path, 1, models="toy")
    assert json.loads(path.read_text())["cases"]["toy"]["why_not"] == {OURS: "no"}
    with pytest.raises(ValueError, match=r"--resume goes on with the file of --json; give that"):
        contest.main(None, 1, models="toy", resume=True)


def test_who_is_wrong_or_fails_is_not_timed(small, monkeypatch, capsys):
    run = contest.run

    def wrong(who, model, inputs):
        if who == contest.CHANNELS_LAST:
            return lambda _: run(contest.EAGER, model, inputs)(None) * 1.1
        if who == field.runtimes.COMPILE:
            raise RuntimeError("no compiler\nat all")
        return run(who, model, inputs)

    monkeypatch.setattr(contest, "run", wrong)
    found = field.measured("toy", field.KINDS["toy"], 2, dict.fromkeys(field.PEERS, "not here"))
    assert set(found["who"]) == {contest.EAGER, OURS}
    why = found["why_not"]
    assert why[contest.CHANNELS_LAST] == "it differs from PyTorch by 0.1"
    assert why[field.runtimes.COMPILE] == "RuntimeError: no compiler"
    out = io.StringIO()
    field.show(Console(file=out, width=80), "toy", found)
    assert "not torch.compile: RuntimeError: no compiler" in out.getvalue()


def test_a_model_without_onnx_file_is_timed_by_the_others(small, monkeypatch):
    def fails(*_):
        raise RuntimeError("aten.strange is not known")

    monkeypatch.setattr(field.runtimes, "onnx_file", fails)
    missing = {who: "not here" for who in PEERS if who not in field.BY_FILE}
    found = field.measured("toy", field.KINDS["toy"], 2, missing)
    assert set(found["who"]) == {contest.EAGER, OURS}
    assert found["why_not"]["openvino"] == "there is no ONNX file of it: aten.strange is not known"


def test_lines_of_all_models_fit_80_columns():
    one = {"median_ms": 123.456, "min_ms": 120.0, "p95_ms": 130.0, "error": 1e-6, "build_s": 1.5,
           "first_build_s": 20.0, "ratio": {"ratio": 2.0, "low": 1.9, "high": 2.1}}  # fmt: skip
    record = {"busy": "", "kernels": 110, "calls": 155, "share_of_pytorch": 0.25, "inputs": [],
              "who": {contest.EAGER: one, "openvino": one | {"median_ms": 100.0}, OURS: one},
              "why_not": {}}  # fmt: skip
    busy = record | {"busy": "others compute"}
    alone = {"busy": "", "who": {contest.EAGER: one}, "why_not": {OURS: "it cannot"}, "inputs": []}
    out = io.StringIO()
    field.summary(Console(file=out, width=80),
                  {"efficientformer": record, "busy": busy, "alone": alone})  # fmt: skip
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = [" ".join(line.split()) for line in lines]
    assert "efficientformer 110/155 25 % 123 100 123 2.0 2.0" in words
    assert "busy 110/155 25 % 123 100 123 – –" in words
    assert "alone – – 123 – – 2.0 –" in words


def test_options_that_do_not_fit():
    with pytest.raises(ValueError, match="--models names what --only would; give one of them"):
        contest.main(only="b1", models="all")
    with pytest.raises(ValueError, match="--resume goes on with --models; give these too"):
        contest.main(resume=True)
    with pytest.raises(ValueError, match="bench: machine has no --models; run it without"):
        command.bench("machine", models="all")


# --- what is kept ---------------------------------------------------------------------------------


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "found.json"
    here = kept.Kept("one", path)
    here.put("a", {"number": 1})
    again = kept.Kept("one", path)
    assert again.cases["a"]["number"] == 1
    again.put("b", {"number": 2})
    assert set(kept.read(path)["cases"]) == {"a", "b"}
    assert again.missing(["a", "c"], resume=True) == ["c"]
    assert again.missing(["a", "c"], resume=False) == ["a", "c"]
    with pytest.raises(ValueError, match="holds results of one, and these would be of other"):
        kept.Kept("other", path)
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"machine": {"cpu": "a toy", "threads": 2}}))
    with pytest.raises(ValueError, match="holds results of cpu a toy, threads 2, and these would"):
        kept.Kept("one", path)
    for text in ("{}", "[]", "{", '{"cases": {}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no file of such a comparison; give --json"):
            kept.Kept("one", path)
