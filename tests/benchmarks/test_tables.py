"""The tables of the guide's pages are what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pages
import tables
from frame import OURS

RATIO = {"ratio": 2.5, "low": 2.0, "high": 3.0}
TIMES = {"median_ms": 3.0, "min_ms": 2.0, "p95_ms": 4.0, "ratio": RATIO, "error": 2e-7,
         "build_s": 1.25, "first_build_s": 9.0}  # fmt: skip
HEAD = {"comparison": "x", "machine": {"cpu": "a toy", "threads": 2},
        "versions": {"torch": "2.13.0", "numpy": "2.0"}}  # fmt: skip


def files() -> dict[str, dict]:
    field = {"measured": "2026-01-02", "busy": "", "kernels": 8, "calls": 10, "inputs": [],
             "share_of_pytorch": 0.125, "why_not": {"ncnn": "it cannot"},
             "who": {"torch_eager": TIMES, "openvino": TIMES | {"median_ms": 2.0},
                     OURS: TIMES | {"median_ms": 1.234}}}  # fmt: skip
    seconds = {"median_s": 1.5, "min_s": 1.25, "p95_s": 1.75, "ratio": RATIO, "size_mb": 12.34,
               "build_s": 3.0, "error": 0}  # fmt: skip
    saved = {"measured": "2026-01-03", "busy": "others compute", "inputs": [], "why_not": {},
             "who": {OURS: seconds, "aotinductor_loader": seconds | {"build_s": None}}}  # fmt: skip
    int8 = {"measured": "2026-01-04", "busy": "", "instructions": "AVX2", "weights": 7,
            "openvino_by": "NNCF", "why_not": {},
            "who": {"pointwise_int8": {"median_ms": 3.0, "of_float": RATIO, "error": 0.0123,
                    "same_class": 0.995, "accuracy": None, "build_s": 2.0}}}  # fmt: skip
    return {"field": HEAD | {"cases": {"unet": field, "tcn": field | {"busy": "others compute"}}},
            "saved": HEAD | {"cases": {"unet": saved}},
            "int8": HEAD | {"cases": {"digits": int8}}}  # fmt: skip


def test_files_become_tables(tmp_path):
    page, folder = tmp_path / "field.md", tmp_path / "measured"
    folder.mkdir()
    places = "".join(f"{pages.begin(tables.by(name))}\nold\n{pages.END}\n" for name in files())
    page.write_text(f"# Before\n{places}After.\n", encoding="utf-8")
    app = typer.Typer()
    app.command()(tables.command)

    def written() -> str:
        done = CliRunner().invoke(app, ["--docs", str(tmp_path), "--measured", str(folder)])
        assert done.exit_code == 0, done.exception
        return page.read_text(encoding="utf-8")

    assert written().count("old") == 3
    for name, found in files().items():
        (folder / f"{name}.json").write_text(json.dumps(found))
    text = written()
    assert "old" not in text
    assert written() == text
    row = "8/10 | 12 % | 3.00 | 2.00 | **1.23** | 2.5 | 2.5 (OpenVINO) | 2e-07 | 1.2 |"
    assert f"| `unet` | {row}" in text
    assert "| `tcn` | 8/10 | 12 % | 3.00 | 2.00 | **1.23** | – | – (OpenVINO) |" in text
    assert "- ncnn, unet, tcn: `it cannot`" in text
    assert "tcn: This machine is busy: others compute." in text
    assert "| `unet` | accelerate | 1.25 | 1.50 | – | 12.3 | 3 |" in text
    assert "|  | AOTInductor, loader | 1.25 | 1.50 | – | 12.3 |  |" in text
    assert "| `digits` | accelerate, int8 | 3.00 | 2.5 | 1.2 % | 99.5 % |  | 2 |" in text
    assert "AVX2; ONNX Runtime's weights have 7 bits; OpenVINO's int8 is by NNCF" in text
    assert "a toy, 2 threads; PyTorch 2.13.0; 2026-01-02." in text


def test_rows_become_a_table(tmp_path):
    def row(case, who, ms, over=1.0, **more):
        return {"case": case, "who": who, "median_ms": ms, "share_of_limit": 0.5, "busy": "",
                "ratio": {"ratio": over, "low": 0.0, "high": 9.0}, **more}  # fmt: skip

    page, file = tmp_path / "speed.md", tmp_path / "training_avx2.json"
    page.write_text(f"{pages.begin(tables.by('training_avx2'))}\nold\n{pages.END}\n")
    rows = [row("a", OURS, 4.0), row("a", "torch_eager", 5.0, 1.25), row("a", "torch_mm", 8.0, 2.0),
            row("b", OURS, 4.0, busy="others compute"), row("b", "torch_eager", 2.0, 0.5),
            row("c", OURS, 3.0, share_of_limit=None)]  # fmt: skip
    machine = {"cpu": "a toy", "threads": 2, "fma_gflops": 100.4, "bandwidth_gbs": 20.2}
    file.write_text(json.dumps({"machine": machine, "rows": rows}))
    app = typer.Typer()
    app.command()(tables.command)
    done = CliRunner().invoke(app, ["--docs", str(tmp_path), "--measured", str(tmp_path)])
    assert done.exit_code == 0, done.exception
    text = page.read_text()
    assert "|  | pointwise | limit | PyTorch | torch.mm | of the best |" in text
    assert "| `a` | **4.00** | 50 % | 5.00 | 8.00 | 1.25 (PyTorch) |" in text
    assert "| `b` | 4.00 |  | **2.00** |  | – (PyTorch) |" in text
    assert "| `c` | 3.00 |  |  |  |  |" in text
    assert "a toy, 2 threads, 100 GFLOP/s, 20 GB/s." in text
    assert "b: This machine is busy: others compute." in text
    file.write_text("{}")
    with pytest.raises(ValueError, match="holds no rows"):
        tables.texts("speed.md", tmp_path)


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_page_says_what_was_measured(name):
    """Its tables are those of the files beside it, and where there is no file it says so."""
    page = (tables.DOCS / name).read_text(encoding="utf-8")
    found = tables.texts(name, tables.DOCS / "measured")
    for file in tables.PAGES[name]:
        place = page.partition(pages.begin(tables.by(file)))[2].partition(pages.END)[0].strip()
        assert place == found.get(file, "Not measured yet.").strip()


def test_a_page_without_places_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no place for figures"):
        pages.put(page, "text", "somebody")
    assert page.read_text() == "nothing"
