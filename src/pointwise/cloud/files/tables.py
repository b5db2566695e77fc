"""Rows of numbers in text, read by pandas: exactly, in bounded memory, errors with their line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pointwise.extras import import_extra

LONGEST_LINE = 1 << 20  # characters; 20,000 columns take some 400,000
_CELLS_AT_ONCE = 1 << 22
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?")  # Fortran's exponent is D
_NOT_FINITE = re.compile(
    r"(?i)|[+-]?nan(?:\(ind\))?|[+-]?1\.#(?:ind|qnan|inf)0*|na|n/a|#n/a|<na>|null|none|"
    r"[+-]?inf(?:inity)?"
)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:(?:,\d{3})+\.\d*|(?:\.\d{3})+,\d*)")  # 1,234.5 or 1.234,5
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_WORDS = re.compile(r"\"[^\"]*\"|'[^']*'|\S+")


@dataclass(frozen=True)
class Form:
    """How a row is written: what separates its cells (None: white space), and the decimal sign."""

    separator: str | None = None
    decimal: str = "."

    def cells(self, line: str) -> list[str]:
        """The cells of a line, without quotes."""
        if self.separator is None:
            return [word.strip("\"'") for word in _WORDS.findall(line)]
        try:
            row = next(csv.reader([line.strip("\r\n")], delimiter=self.separator), [])
        except csv.Error:  # a cell of more than 131,072 characters
            row = line.split(self.separator)
        return [cell.strip().strip("\"'").strip() for cell in row]

    def number(self, cell: str) -> float | None:
        """The number in a cell, NaN of an empty one and of the words for it; None of other text."""
        word = cell.strip().strip("\"'").strip()
        if self.decimal == ",":
            # Beside a decimal comma a point could only stand between thousands.
            word = "" if "." in word and _NUMBER.fullmatch(word) else word.replace(",", ".")
            if not word and cell.strip():
                return None
        if _NUMBER.fullmatch(word):
            return float(word.replace("D", "e").replace("d", "e"))
        if _NOT_FINITE.fullmatch(word):
            infinite = "inf" in word.lower()
            return float("-inf" if word[0] == "-" else "inf") if infinite else float("nan")
        return None

    def numbers(self, line: str) -> int:
        """How many cells of a line hold a number, or what is meant for one."""
        cells = filter(None, self.cells(line))
        return sum(self.number(c) is not None or bool(_GROUPED.fullmatch(c)) for c in cells)


FORMS = (
    Form(";", "."),
    Form(";", ","),
    Form("\t", "."),
    Form("\t", ","),
    Form(",", "."),
    Form(",", ","),  # in quotes
    Form(None, "."),
    Form(None, ","),
)


def form_of(lines: Sequence[str]) -> Form:
    """The form in which ``lines`` hold the most numbers, and as many in each."""

    def fits(form: Form) -> tuple[int, int]:
        widths = {len(form.cells(line)) for line in lines}
        return sum(map(form.numbers, lines)), -len(widths)

    possible = [form for form in FORMS if (form.separator or "") in lines[0]]
    return max(possible, key=fits)  # of equals the first


def check_thousands(form: Form, lines: Sequence[str]) -> None:
    """Raises where every comma could be a decimal sign, or as well stand between thousands."""
    if form.decimal == ".":
        return
    cells = [cell for line in lines for cell in form.cells(line) if "," in cell]
    if cells and all(map(_THOUSANDS.fullmatch, cells)):
        plain = cells[0].replace(",", "")
        raise ValueError(
            f"two readings fit: {cells[0]!r} is {cells[0].replace(',', '.')} or {plain}; "
            "write decimal points, and nothing between thousands"
        )


def open_text(path: Path) -> TextIO:
    """Opens UTF-8, UTF-16 or UTF-32 by the mark at its beginning, else UTF-8 or Latin-1."""
    with open(path, "rb") as stream:
        start = stream.read(1 << 16)
    return open(path, encoding=_encoding(start), errors="replace")


def _encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in start:
        for name, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
            if zeros and zeros.count(0) == len(zeros):
                return name
        raise ValueError("is no text: it has bytes that are 0")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def without_comments(text: str, form: Form) -> str:
    """Whole lines of text with their comments cut off; no line is taken out."""
    if "#" not in text and "//" not in text and "%" not in text and ";" not in text:
        return text  # the usual case, at the speed of a search for a byte
    marks = "#|//|%" if form.separator == ";" else "#|//|%|;"
    return re.sub(rf"(?m)^[ \t]*(?:{marks})[^\n]*|[ \t]#[ \t][^\n]*", "", text)


class _Body:
    """What pandas reads: the stream's text from where it stands, without comments."""

    def __init__(self, stream: TextIO, form: Form) -> None:
        self.stream, self.form = stream, form

    def read(self, size: int = -1) -> str:
        block = self.stream.read(size)
        if block and not block.endswith("\n"):
            block += self.stream.readline(LONGEST_LINE)
        return without_comments(block, self.form)

    def __iter__(self) -> Iterator[str]:
        return iter(self.read().splitlines(keepends=True))


class Rows:
    """The rows of a text from line ``start`` (counted from 0) on, ``width`` cells in each.

    ``opened`` opens the text anew: what is wrong is looked for in a second pass. ``texts`` are the
    columns that hold no numbers at all, with the first of their words.
    """

    def __init__(
        self, opened: Callable[[], TextIO], start: int, form: Form, width: int, skip: set[int]
    ) -> None:
        self.opened, self.start, self.form = opened, start, form
        self.width, self.skip = width, skip
        self.texts: dict[int, str] = {}
        self._at = 0  # how many rows of the text have been read
        self._open: list[int] = []  # rows whose last cell is empty, or is not there
        self._parts: list[list[np.ndarray]] = [[] for _ in range(width)]

    def __enter__(self) -> Rows:
        self._stream = self.opened()
        for _ in range(self.start):
            self._stream.readline()
        pandas = import_extra("pandas", "files")
        version = tuple(map(int, pandas.__version__.split(".")[:2]))
        exact = {} if version >= (3, 1) else {"float_precision": "round_trip"}
        try:
            self._reader = self._parsed(
                lambda: pandas.read_csv(
                    _Body(self._stream, self.form),
                    sep=self.form.separator or r"\s+",
                    decimal=self.form.decimal,
                    header=None,
                    iterator=True,
                    low_memory=False,
                    skipinitialspace=True,
                    **exact,
                )
            )
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()
        self._stream.close()

    def take(self, count: int | None = None) -> int:
        """Reads ``count`` more rows, or all that are left; how many there were."""
        taken = 0
        most = max(1, _CELLS_AT_ONCE // self.width)
        while count is None or taken < count:
            frame = self._next(most if count is None else min(most, count - taken))
            if frame is None:
                break
            self._append(frame)
            self._at += len(frame)
            taken += len(frame)
        return taken

    def take_count(self) -> int | None:
        """The whole number alone on the next line; -1 for anything else, None at the end."""
        frame = self._next(1)
        if frame is None:
            return None
        self._at += 1
        first, *others = frame.iloc[0].tolist()
        alone = all(isinstance(cell, float) and np.isnan(cell) for cell in others)
        whole = not isinstance(first, str) and float(first).is_integer()
        return int(first) if alone and whole else -1

    def columns(self) -> list[np.ndarray | None]:
        """All that was taken: a column ``[rows]`` for each cell; None of those left out."""
        self._check_open()
        columns: list[np.ndarray | None] = []
        for k, parts in enumerate(self._parts):
            left_out = k in self.skip or k in self.texts
            columns.append(None if left_out else _joined(parts))
            parts.clear()
        return columns

    def refuse_text(self, column: int) -> None:
        """Raises for a column that should hold numbers, and holds ``texts``."""
        number, line = next(self._lines())
        self._refuse_cell(number, column, self.form.cells(line)[column])

    def _next(self, count: int) -> Any:
        """A frame of up to ``count`` rows; None at the end."""
        try:
            frame = self._parsed(lambda: self._reader.get_chunk(count))
        except StopIteration:
            return None
        if frame.shape[1] != self.width:
            raise ValueError(_ragged(self.start + 1, frame.shape[1], self.width))
        return frame

    def _parsed(self, parse: Callable[[], Any]) -> Any:
        """What pandas makes of the text; its errors with the line of the file."""
        pandas = import_extra("pandas", "files")
        try:
            return parse()
        except pandas.errors.ParserError as error:
            message = str(error)
        if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message):
            expected, number, saw = map(int, found.groups())
            raise ValueError(_ragged(self.start + number, saw, expected))
        if found := re.search(r"EOF inside string starting at row (\d+)", message):
            number, _ = self._line(int(found[1]))
            raise ValueError(f"line {number} opens a quote that nothing closes")
        raise ValueError(message.strip().rpartition("C error: ")[2])

    def _append(self, frame: Any) -> None:
        last = frame[self.width - 1]
        self._open += (self._at + np.flatnonzero(last.isna().to_numpy())).tolist()
        for k, series in zip(frame.columns, _series(frame), strict=True):
            if k not in self.skip and k not in self.texts:
                values = self._values(k, series)
                if values is not None:
                    self._parts[k].append(values)

    def _values(self, k: int, series: Any) -> np.ndarray | None:
        """Numbers ``[rows]``; None where none of the cells is one, and none ever was."""
        kind = getattr(series.dtype, "kind", "O")
        if kind in "iufb":
            return series.to_numpy(np.uint8 if kind == "b" else None)
        cells = [
            self.form.number(cell) if isinstance(cell, str) else float(cell) for cell in series
        ]
        if None not in cells:
            return np.array(cells, dtype=np.float64)
        words = [cell for cell in series if isinstance(cell, str)]
        if not self._parts[k] and len(words) == sum(cell is None for cell in cells):
            self.texts[k] = words[0]
            return None
        row = cells.index(None)
        number, _ = self._line(self._at + row)
        self._refuse_cell(number, k, str(series.iloc[row]))
        return None

    def _check_open(self) -> None:
        """Raises where a row has too few cells, which pandas fills up as if they were empty."""
        if not self._open:
            return
        wanted = set(self._open)
        for row, (number, line) in enumerate(self._lines()):
            if row in wanted and (found := len(self.form.cells(line))) < self.width:
                raise ValueError(_ragged(number, found, self.width))

    def _refuse_cell(self, number: int, column: int, cell: str) -> None:
        why = " where commas are decimal signs" if self.form.decimal == "," else ""
        if _GROUPED.fullmatch(cell.strip()):
            why = "; nothing may stand between thousands"
        raise ValueError(
            f"line {number}, column {column + 1}: {cell.strip()[:40]!r} is no number{why}"
        )

    def _line(self, row: int) -> tuple[int, str]:
        return next(line for k, line in enumerate(self._lines()) if k == row)

    def _lines(self) -> Iterator[tuple[int, str]]:
        """The rows as text, with the numbers of their lines."""
        blank = " \t\r\n".replace(self.form.separator or "\0", "")
        with self.opened() as stream:
            for number, line in enumerate(stream, 1):
                if number > self.start:
                    bare = without_comments(line, self.form)
                    if bare.strip(blank):
                        yield number, bare


def rows_of(text: str, width: int) -> list[np.ndarray]:
    """The columns of a text with nothing in it but rows of ``width`` numbers and white space.

    Raises ValueError where a line has another number of them, or something else.
    """
    with Rows(lambda: io.StringIO(text), 0, Form(), width, set()) as rows:
        rows.take()
        columns = rows.columns()
        for k in rows.texts:
            rows.refuse_text(k)
    return [column for column in columns if column is not None]


def _series(frame: Any) -> Iterator[Any]:
    return (frame[k] for k in frame.columns)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One array of all; whole numbers stay whole, where NumPy would take floats for the mixture."""
    if not parts:
        return np.empty(0)
    mixed = {part.dtype.kind for part in parts} == {"i", "u"}
    if mixed and all(part.min(initial=0) >= 0 for part in parts):
        parts = [part.astype(np.uint64) for part in parts]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _ragged(number: int, found: int, expected: int) -> str:
    return f"line {number} has {found} columns, the first of the points has {expected}"
