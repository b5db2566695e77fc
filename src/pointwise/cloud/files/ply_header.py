"""The header of a PLY file as programs write it: any line ends, comments of any encoding.

plyfile, which knows the types, takes headers of ASCII only, with the same end at every line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pointwise.extras import import_extra

ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_VERTICES = ("vertex", "vertices", "point", "points")  # the first is the format's own name
_FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?ply[ \t]*(\r\n|\r|\n)", re.IGNORECASE)
_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass
class Element:
    """One element of a header: its properties by name, in the file's order."""

    name: str
    count: int
    properties: dict[str, Any] = field(default_factory=dict)  # plyfile's, each called by its number
    lines: dict[str, int] = field(default_factory=dict)  # where each stands in the header

    @property
    def has_lists(self) -> bool:
        return any(map(is_list, self.properties.values()))

    def dtype(self, order: str) -> np.dtype:
        """A row of a binary file, where no property is a list."""
        return np.dtype([(name, kind.dtype(order)) for name, kind in self.properties.items()])

    def least_size(self) -> int:
        """The bytes of a row of a binary file whose lists are empty."""
        kinds = self.properties.values()
        types = [kind.len_dtype if is_list(kind) else kind.val_dtype for kind in kinds]
        return sum(np.dtype(each).itemsize for each in types)


@dataclass
class Header:
    lines: list[bytes]  # without their ends
    line_end: bytes
    size: int = 0  # bytes before the body
    format: str = ""
    elements: list[Element] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    @property
    def vertices(self) -> Element:
        named = {element.name: element for element in self.elements}
        found = next((named[name] for name in _VERTICES if name in named), None)
        if (
            found is None
            and len(self.elements) == 1
            and {"x", "y", "z"} <= set(self.elements[0].properties)
        ):
            return self.elements[0]  # of DALES Objects, where it is called "testing"
        if found is None:
            raise ValueError("no element 'vertex', which holds the points of a PLY file")
        return found


def header_of(content: bytes) -> Header:
    """The header that a PLY file begins with; raises ValueError where it cannot be read.

    Raises too where the file is too short for the rows that the header says, since space for them
    is reserved before the first is read. What follows the vertices may be missing.
    """
    first = _FIRST_LINE.match(content)
    if first is None:
        raise ValueError("not a PLY file: its first line does not say ply")
    header = Header(lines=[b"ply"], line_end=first[1])
    start = first.end()
    for match in _LINE_END.finditer(content, start):
        header.lines.append(content[start : match.start()])
        words = words_of(header.lines[-1])
        if words == ["end_header"]:
            # Where lines end in CR alone, an LF behind the last belongs to the numbers.
            line_end = header.line_end if match[0].startswith(header.line_end) else match[0]
            header.size = match.start() + len(line_end)
            break
        if words:
            _take(header, words)
        start = match.end()
    if not header.size:
        raise ValueError("truncated: its header has no line end_header")
    if not header.format:
        raise ValueError("the PLY header has no line format")
    _check_counts(header, len(content) - header.size)
    return header


def with_plain_lines(content: bytes) -> bytes:
    """A PLY file for readers that know lines of ASCII, ended by LF, alone."""
    header = header_of(content)
    lines = [b" ".join(line.split()) for line in header.lines]
    lines = [line for line in lines if line and not line.startswith((b"comment", b"obj_info"))]
    body = content[header.size :]
    if header.format == "ascii":
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return b"\n".join([*lines, body])


def words_of(line: bytes) -> list[str]:
    """The words of a line of a header, whose encoding the format does not state."""
    try:
        return line.decode("utf-8").split()
    except UnicodeDecodeError:
        return line.decode("latin-1").split()


def is_list(kind: Any) -> bool:
    """Whether a property of plyfile's is a list."""
    return hasattr(kind, "len_dtype")


def _take(header: Header, words: list[str]) -> None:
    """Takes one line of a header into ``header``."""
    match words:
        case ["comment", *rest]:
            header.comments.append(" ".join(rest))
        case ["obj_info", *_]:
            pass
        case ["format", name, "1.0"] if name in ORDERS and not header.format:
            header.format = name
        case ["element", name, count] if count.isdecimal():
            if name in [element.name for element in header.elements]:
                raise ValueError(f"the PLY header has two elements {name!r}")
            header.elements.append(Element(name, int(count)))
        case ["property", *types, name] if header.elements and len(types) in (1, 3):
            element = header.elements[-1]
            if name in element.properties:
                raise ValueError(f"the PLY header has two properties {name!r}; rename one of them")
            element.properties[name] = _property(types, str(len(element.properties)))
            element.lines[name] = len(header.lines) - 1
        case _:
            line = " ".join(words)
            raise ValueError(f"line {len(header.lines)} of the PLY header is none: {line[:80]!r}")


def _property(types: list[str], number: str) -> Any:
    plyfile = import_extra("plyfile", "files")
    try:
        match types:
            case [value]:
                return plyfile.PlyProperty(number, value)
            case ["list", length, value] if not length.startswith(("float", "double")):
                return plyfile.PlyListProperty(number, length, value)
    except ValueError:
        pass
    raise ValueError(f"a PLY property cannot have the type {' '.join(types)!r}")


def _check_counts(header: Header, room: int) -> None:
    for element in header.elements[: header.elements.index(header.vertices) + 1]:
        least = 1 if header.format == "ascii" else element.least_size()
        if element.count * max(least, 1) > room:
            raise ValueError(
                f"truncated: the header says {element.count} of {element.name!r}, "
                f"{room} bytes follow"
            )
