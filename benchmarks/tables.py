r"""The tables of docs/field.md, made of what the benchmarks have measured.

    pointwise bench accelerate --models all --json docs/measured/field.json
    pointwise bench saved --json docs/measured/saved.json
    pointwise bench int8 --json docs/measured/int8.json
    python benchmarks/tables.py

writes what these files hold into the page; a file that is not there leaves its place as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import accelerate as contest
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
    page: Annotated[Path, typer.Option(help="The page to write into.")] = DOCS / "field.md",
    measured: Annotated[
        Path, typer.Option(help="The folder with field.json, saved.json and int8.json.")
    ] = DOCS / "measured",
) -> None:
    """Writes what was measured into the tables of the page."""
    for name, text in texts(measured).items():
        pages.put(page, text, by(name))
        print(f"{page}: {name}")


def by(name: str) -> str:
    """Whose place in the page is that of a file."""
    return f"benchmarks/tables.py of {name}.json"


def texts(measured: Path) -> dict[str, str]:
    """What is to stand in the page, by the names of the files that are there."""
    return {
        name: write(kept.read(measured / f"{name}.json"))
        for name, write in _TABLES.items()
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


_TABLES: dict[str, Tables] = {"field": of_field, "saved": of_saved, "int8": of_int8}

if __name__ == "__main__":
    typer.run(command)
