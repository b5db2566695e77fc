r"""The tables of docs/field.md and docs/speed.md, made of what the benchmarks have measured.

    pointwise bench accelerate --models all --json docs/measured/field.json
    pointwise bench saved --json docs/measured/saved.json
    pointwise bench int8 --json docs/measured/int8.json
    pointwise bench cloud --json docs/measured/cloud_avx512.json
    POINTWISE_ISA=avx2 pointwise bench cloud --json docs/measured/cloud_avx2.json
    python benchmarks/tables.py

writes what these files hold into the pages; a file that is not there leaves its place as it is. Of
``image``, ``training``, ``accelerate`` and ``bf16`` there are files as of ``cloud``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import accelerate as contest
import bf16
import field
import int8
import kept
import pages
import saved
import typer
from frame import OURS

from pointwise.costs.tables import milliseconds
from pointwise.messages import rounded
from pointwise.timing.load import verdict_of
from pointwise.timing.ratio import factor

DOCS = Path(__file__).parents[1] / "docs"
Found = dict[str, Any]
Tables = Callable[[Found], str]


def command(
    docs: Annotated[Path, typer.Option(help="The folder with field.md and speed.md.")] = DOCS,
    measured: Annotated[
        Path, typer.Option(help="The folder with field.json, saved.json and the others.")
    ] = DOCS / "measured",
) -> None:
    """Writes what was measured into the tables of the pages."""
    for page in PAGES:
        for name, text in texts(page, measured).items():
            pages.put(docs / page, text, by(name))
            print(f"{docs / page}: {name}")


def by(name: str) -> str:
    """Whose place in the page is that of a file."""
    return f"benchmarks/tables.py of {name}.json"


def texts(page: str, measured: Path) -> dict[str, str]:
    """What is to stand in a page, by the names of the files that are there."""
    return {
        name: write(read(measured / f"{name}.json"))
        for name, (read, write) in PAGES[page].items()
        if (measured / f"{name}.json").is_file()
    }


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Markdown; all but the first columns are numbers."""
    marks = ["---"] * words + ["--:"] * (len(heads) - words)
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, marks, *rows)) + "\n"


def _footer(found: Found) -> str:
    """Where and when, with which versions, and for which cases the machine was busy."""
    machine, cases = found["machine"], found["cases"]
    days = sorted({record["measured"] for record in cases.values()})
    names = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO",
             "nncf": "NNCF", "ai-edge-litert": "LiteRT"}  # fmt: skip
    versions = ", ".join(
        f"{names.get(package, package)} {version}" for package, version in found["versions"].items()
        if package in (*names, "MNN", "ncnn")
    )  # fmt: skip
    lines = [
        f"{machine['cpu']}, {machine['threads']} threads; {versions}; "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}."
    ]
    if busy := {name: record["busy"] for name, record in cases.items() if record["busy"]}:
        lines.append(f"{', '.join(busy)}: {verdict_of(next(iter(busy.values())))}")
    return "\n" + "\n\n".join(lines) + "\n"


def _why_not(found: Found, names: dict[str, str]) -> str:
    """Who could not do what, and why: once for all models of the same reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for model, record in found["cases"].items():
        for who, why in record["why_not"].items():
            reasons.setdefault((names[who], why), []).append(model)
    lines = [
        f"- {who}, {', '.join(models)}: `{why.replace('`', chr(39))}`"
        for (who, why), models in reasons.items()
    ]
    return "\nNot timed:\n\n" + "\n".join(lines) + "\n" if lines else ""


# --- the kinds of models --------------------------------------------------------------------------


def of_field(found: Found) -> str:
    """A row for each model: times of everyone, and how ours stands to PyTorch and the runtimes."""
    cases = found["cases"]
    who = [one for one in field.WHO if any(one in record["who"] for record in cases.values())]
    heads = ["", "kernels", "PyTorch's", *(_short(one) for one in who), "of PyTorch", "of the best",
             "error", "build, s"]  # fmt: skip
    rows = [_row(name, record, who) for name, record in cases.items()]
    return _table(heads, rows) + _footer(found) + _why_not(found, contest.NAMES)


def _row(name: str, record: Found, who: Sequence[str]) -> list[str]:
    ours = record["who"].get(OURS)
    times = {one: record["who"][one]["median_ms"] for one in who if one in record["who"]}
    least = min(times.values(), default=0)
    share = record.get("share_of_pytorch")
    first = field.best(record)
    runtime = f"{field.over(record, first)} ({_short(first)})" if first else "–"
    return [
        f"`{name}`",
        f"{record['kernels']}/{record['calls']}" if "calls" in record else "–",
        "–" if share is None else f"{100 * share:.0f} %",
        *("–" if one not in times else _bold(milliseconds(times[one]), times[one] == least)
          for one in who),
        field.over(record, contest.EAGER), runtime,
        "–" if ours is None else f"{ours['error']:.0e}",
        "–" if ours is None else rounded(ours["build_s"], 2)]  # fmt: skip


def _short(who: str) -> str:
    return "accelerate" if who == OURS else contest.NAMES[who]


def _bold(text: str, yes: bool) -> str:
    return f"**{text}**" if yes else text


# --- saved models ---------------------------------------------------------------------------------


def of_saved(found: Found) -> str:
    """A row for each who has saved a model: seconds, megabytes, and what saving took."""
    heads = ["", "", "least, s", "median, s", "over ours", "on disk, MB", "to save, s"]
    rows = []
    for name, record in found["cases"].items():
        for number, (who, one) in enumerate(record["who"].items()):
            over = one["ratio"] is not None and who != OURS and not record["busy"]
            rows.append([
                "" if number else f"`{name}`", saved.NAMES[who],
                f"{one['min_s']:.2f}", f"{one['median_s']:.2f}",
                factor(one["ratio"]["ratio"]) if over else "–", f"{one['size_mb']:.1f}",
                "" if one["build_s"] is None else rounded(one["build_s"], 2)])  # fmt: skip
    return _table(heads, rows, 2) + _footer(found) + _why_not(found, saved.NAMES)


# --- int8 -----------------------------------------------------------------------------------------


def of_int8(found: Found) -> str:
    """A row for each who answers: times, errors, and what is right."""
    heads = ["", "", "ms", "time of its float32", "error", "same class", "right", "build, s"]
    rows = []
    for name, record in found["cases"].items():
        for number, (who, one) in enumerate(record["who"].items()):
            ratio = one["of_float"]
            rows.append([
                "" if number else f"`{name}`", int8.NAMES[who],
                milliseconds(one["median_ms"]),
                "" if ratio is None else "–" if record["busy"] else factor(ratio["ratio"]),
                f"{100 * one['error']:.2g} %", f"{100 * one['same_class']:.1f} %",
                "" if one["accuracy"] is None else f"{100 * one['accuracy']:.1f} %",
                rounded(one["build_s"], 2)])  # fmt: skip
    last = next(iter(found["cases"].values()))
    said = (
        f"\nBytes are multiplied by {last['instructions']}; ONNX Runtime's weights have "
        f"{last['weights']} bits; OpenVINO's int8 is by {last['openvino_by']}.\n"
    )
    return _table(heads, rows, 2) + said + _footer(found) + _why_not(found, int8.NAMES)


# --- speed ----------------------------------------------------------------------------------------

_OTHERS = {"torch": "PyTorch", "torch_mm": "torch.mm", "ckdtree": "SciPy, lists",
           "ckdtree_pairs": "SciPy, pairs", "open3d": "Open3D"}  # fmt: skip
_NAMES = contest.NAMES | bf16.NAMES | _OTHERS | {OURS: "pointwise"}


def read_rows(path: Path) -> Found:
    """A file that ``frame.write`` has written; ValueError for any other."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["machine"], dict) and found["rows"]:
            return found
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} holds no rows of a benchmark")


def of_rows(found: Found) -> str:
    """A row for each case: times of everyone, and the fastest of the others over ours."""
    rows = found["rows"]
    who = list(dict.fromkeys(row["who"] for row in rows))
    who.remove(OURS)
    heads = ["", "pointwise", "limit", *(_NAMES[one] for one in who), "of the best"]
    cases: dict[str, dict[str, Any]] = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["who"]] = row
    machine = found["machine"]
    footer = (
        f"\n{machine['cpu']}, {machine['threads']} threads, {machine['fma_gflops']:.0f} GFLOP/s, "
        f"{machine['bandwidth_gbs']:.0f} GB/s.\n"
    )
    busy = {row["case"]: row["busy"] for row in rows if row["busy"]}
    if busy:
        footer += f"\n{', '.join(busy)}: {verdict_of(next(iter(busy.values())))}\n"
    return _table(heads, [_speeds(name, by_who, who) for name, by_who in cases.items()]) + footer


def _speeds(name: str, rows: Found, who: Sequence[str]) -> list[str]:
    ours = rows[OURS]
    times = {one: row["median_ms"] for one, row in rows.items()}
    others = [one for one in times if not one.startswith(OURS)]  # theirs, not ours compiled
    first = min(others, key=times.__getitem__, default="")
    share = ours["share_of_limit"]
    least = min(times.values())
    if not first:
        best = ""
    elif ours["busy"]:
        best = f"– ({_NAMES[first]})"
    else:
        best = f"{factor(rows[first]['ratio']['ratio'])} ({_NAMES[first]})"
    return [
        f"`{name}`",
        _bold(milliseconds(times[OURS]), times[OURS] == least and bool(first)),
        "" if share is None or ours["busy"] else f"{100 * share:.0f} %",
        *("" if one not in times else _bold(milliseconds(times[one]), times[one] == least)
          for one in who),
        best]  # fmt: skip


_Table = tuple[Callable[[Path], Found], Tables]
_SPEED = [f"{name}_{isa}" for name in ("cloud", "image", "training", "accelerate")
          for isa in ("avx512", "avx2")]  # fmt: skip
_ROWS: _Table = (read_rows, of_rows)
PAGES: dict[str, dict[str, _Table]] = {
    "field.md": {"field": (kept.read, of_field), "field_avx512": (kept.read, of_field),
                 "saved": (kept.read, of_saved), "int8": (kept.read, of_int8)},
    "speed.md": dict.fromkeys([*_SPEED, "bf16"], _ROWS),
}  # fmt: skip

if __name__ == "__main__":
    typer.run(command)
