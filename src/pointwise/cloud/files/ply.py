"""PLY: vertices with any properties. What is no vertex is never parsed, and copied as it is."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files import dales
from pointwise.cloud.files.columns import (
    columns_from_fields,
    find_column,
    scan_from_columns,
)
from pointwise.cloud.files.ply_header import ORDERS, Element, Header, header_of, is_list, words_of
from pointwise.cloud.scan import Scan
from pointwise.extras import import_extra

# PLY has no place for class names, so they travel as comments: "comment class 6 building".
_CLASS_COMMENT = re.compile(r"class (-?\d+) (.+)")
_FILLED_LINE = re.compile(rb"\S[^\r\n]*")
_NO_NUMBER = re.compile(rb"[-+]?(1\.#\w+|nan\(\w+\))", re.IGNORECASE)  # by Microsoft's libraries


def read(path: Path) -> list[Scan]:
    """The vertices of a PLY file as one cloud; faces and other elements are left out."""
    content = path.read_bytes()
    header = header_of(content)
    start, end = _extent(header, content)
    others = header.elements[header.elements.index(header.vertices) + 1 :]
    if not any(element.count for element in others) and content[end:].strip():
        warnings.warn(
            f"{path}: the header says {header.vertices.count} points; left out "
            f"{len(content) - end} bytes behind them",
            stacklevel=2,
        )
    columns = {
        name: values.astype(values.dtype.newbyteorder("="))
        for name, values in _columns(header.vertices, header.format, content[start:end]).items()
        if values.dtype.kind != "O"  # lists have another length at every vertex
    }
    scan = scan_from_columns(columns)
    matches = [match for each in header.comments if (match := _CLASS_COMMENT.fullmatch(each))]
    scan.classes = {int(match[1]): match[2] for match in matches}
    if set(columns) >= dales.MARKS and not scan.classes and scan.labels is not None:
        scan = dales.with_classes(scan)
    return [scan]


def write(scan: Scan, path: Path) -> None:
    """Writes binary PLY with every field; coordinates are doubles."""
    plyfile = import_extra("plyfile", "files")
    columns = dict(zip("xyz", scan.points.astype(np.float64).T, strict=True))
    for name, values in columns_from_fields(scan.fields, len(scan)).items():
        columns[_property_name(name)] = _property_values(name, values)
    if scan.labels is not None:
        if "label" in columns:
            raise ValueError("a field is named 'label', as the labels are; rename the field")
        columns["label"] = _label_values(scan.labels)
    vertices = np.empty(len(scan), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        vertices[name] = values
    element = plyfile.PlyElement.describe(vertices, "vertex")
    data = plyfile.PlyData([element], byte_order="<", comments=_comments(scan.classes))
    with replacing(path) as part:
        data.write(part)


def write_labels(
    source: Path, scan: Scan, labels: np.ndarray, path: Path, fields: dict[str, np.ndarray]
) -> None:
    """Writes ``source`` again with a vertex property ``label``, and everything else as it was.

    ``fields`` become properties too, the values of those that have such a name.

    A property that is read as ``label`` (CloudCompare's ``scalar_Label``, say) is replaced; it
    keeps its name, its place and, where that holds the labels, its type.
    """
    content = source.read_bytes()
    header = header_of(content)
    start, end = _extent(header, content)
    element, rows = header.vertices, content[start:end]
    name = _label_name(element)
    kind, values = _label_property(element.properties.get(name), _label_values(labels))
    new = {name: (kind, values)} | {n: (_field_property(v), v) for n, v in fields.items()}
    kinds = {each: kind for each, (kind, _) in new.items()}
    if header.format == "ascii":
        # The text of a NumPy number is the shortest that it can be read from again.
        words = {name: [str(v).encode() for v in values] for name, (_, values) in new.items()}
        body = header.line_end.join(_lines_with(rows, element, words))
    else:
        columns = _columns(element, header.format, rows)
        columns |= {each: values for each, (_, values) in new.items()}
        body = _binary(columns, element.properties | kinds, header.format)
    with replacing(path) as part, open(part, "wb") as stream:
        stream.write(_labelled_header(header, kinds, scan.classes))
        stream.write(content[header.size : start])
        stream.write(body)
        stream.write(content[end:])


def check_labels(
    source: Path, scan: Scan, codes: np.ndarray, path: Path, fields: dict[str, np.ndarray]
) -> None:
    """Raises where ``write_labels`` could not put one of these class codes into ``source``."""
    _label_values(codes)
    vertices = header_of(source.read_bytes()).vertices
    _label_name(vertices)
    for name in fields:
        if is_list(vertices.properties.get(name)):
            raise ValueError(f"property {name!r} is a list, which no field can replace; rename it")


def _extent(header: Header, content: bytes) -> tuple[int, int]:
    """Where the vertices begin and end in the file."""
    start = end = header.size
    for element in header.elements[: header.elements.index(header.vertices) + 1]:
        if header.format == "ascii":
            held, start, end = _lines(element, content, end)
        elif element.has_lists:
            held, start = element.count, end
            end += _read_lists(element, header.format, content[end:])[1]
        else:
            size = element.least_size()
            held, start = (len(content) - end) // max(size, 1), end
            end += element.count * size
        if element.count > held:
            raise ValueError(
                f"truncated: the header says {element.count} of {element.name!r}, {held} follow"
            )
    return start, end


def _lines(element: Element, content: bytes, start: int) -> tuple[int, int, int]:
    """How many lines of an element follow, where they begin and end; empty lines are none."""
    held, first, end = 0, start, start
    for line in islice(_FILLED_LINE.finditer(content, start), element.count):
        first = first if held else line.start()
        held, end = held + 1, line.end()
    return held, first, end


def _columns(element: Element, form: str, rows: bytes) -> dict[str, np.ndarray]:
    if element.has_lists:
        return _read_lists(element, form, rows)[0]
    if form == "ascii":
        return _numbers(element, rows)
    if not element.properties:
        return {}
    table = np.frombuffer(rows, element.dtype(ORDERS[form]), element.count)
    return {name: table[name] for name in element.properties}


def _numbers(element: Element, rows: bytes) -> dict[str, np.ndarray]:
    """The columns of lines of numbers; a double holds whatever a type of PLY holds."""
    if b"#" in rows or b"(" in rows:
        rows = _NO_NUMBER.sub(b"nan", rows)
    table = np.empty((0, len(element.properties)))
    if element.count:
        lines = io.StringIO(rows.decode("latin-1"), newline=None)  # takes all line ends
        try:
            table = np.loadtxt(lines, comments=None, ndmin=2)
        except ValueError as error:
            raise ValueError(f"element {element.name!r}: {str(error).split(';')[0]}") from error
    if table.shape != (element.count, len(element.properties)):
        raise ValueError(
            f"element {element.name!r} has {len(element.properties)} properties, "
            f"its lines have {table.shape[1]} numbers"
        )
    columns = {}
    for (name, kind), values in zip(element.properties.items(), table.T, strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            columns[name] = values.astype(kind.val_dtype)
        if columns[name].dtype.kind in "ui" and not np.array_equal(columns[name], values):
            wrong = values[columns[name] != values][0]
            raise ValueError(f"property {name!r} is {_type(kind)}, which cannot be {wrong:g}")
    return columns


def _read_lists(element: Element, form: str, rows: bytes) -> tuple[dict[str, np.ndarray], int]:
    """The columns of an element with lists, and the bytes of its rows."""
    plyfile = import_extra("plyfile", "files")
    kinds = map(str, element.properties.values())
    lines = ["ply", f"format {form} 1.0", f"element e {element.count}", *kinds, "end_header\n"]
    header = "\n".join(lines).encode()
    stream = io.BytesIO(
        header + (b"\n".join(_FILLED_LINE.findall(rows)) if form == "ascii" else rows)
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*input contained no data")  # an empty list of text
            table = plyfile.PlyData.read(stream)["e"].data
    except plyfile.PlyElementParseError as error:
        raise ValueError(f"element {element.name!r}, row {error.row}: {error.message}") from error
    columns = {name: table[str(k)] for k, name in enumerate(element.properties)}
    return columns, 0 if form == "ascii" else stream.tell() - len(header)


def _binary(columns: dict[str, np.ndarray], properties: dict[str, Any], form: str) -> bytes:
    """Rows of a binary file. plyfile writes those with lists in the machine's own byte order."""
    order = ORDERS[form]
    if not any(map(is_list, properties.values())):
        table = np.empty(
            len(next(iter(columns.values()))),
            [(name, kind.dtype(order)) for name, kind in properties.items()],
        )
        for name in properties:
            table[name] = columns[name]
        return table.tobytes()
    pieces = []
    for row in zip(*(columns[name] for name in properties), strict=True):
        for kind, values in zip(properties.values(), row, strict=True):
            if is_list(kind):
                pieces.append(np.array(len(values), order + kind.len_dtype).tobytes())
            pieces.append(np.asarray(values).astype(order + kind.val_dtype).tobytes())
    return b"".join(pieces)


def _lines_with(rows: bytes, element: Element, new: dict[str, list[bytes]]) -> Iterator[bytes]:
    """The lines of an ascii file with new values in them, in the place of old ones or behind."""
    places = {name: place for place, name in enumerate(element.properties)}
    kinds = list(element.properties.values())
    starts = list(range(len(kinds)))
    for line, *values in zip(_FILLED_LINE.findall(rows), *new.values(), strict=True):
        words = line.split()
        if element.has_lists:
            starts, at = [], 0
            for kind in kinds:
                starts.append(at)
                at += 1 + (int(words[at]) if is_list(kind) else 0)
        for name, word in zip(new, values, strict=True):
            if name in places:
                words[starts[places[name]]] = word
            else:
                words.append(word)
        yield b" ".join(words)


def _labelled_header(header: Header, kinds: dict[str, Any], classes: dict[int, str]) -> bytes:
    lines = list(header.lines)
    places = header.vertices.lines
    behind = max(places.values()) + 1
    for name, kind in kinds.items():
        line = f"property {_type(kind)} {name}".encode()
        if name in places:
            lines[places[name]] = line
        else:
            lines.insert(behind, line)
            behind += 1
    if classes:
        lines = [each for each in lines if not _is_class_comment(each)]
        place = next(k for k, each in enumerate(lines) if words_of(each)[:1] == ["format"]) + 1
        lines[place:place] = [f"comment {each}".encode() for each in _comments(classes)]
    return header.line_end.join(lines) + header.line_end


def _is_class_comment(line: bytes) -> bool:
    first, *words = words_of(line) or [""]
    return first == "comment" and _CLASS_COMMENT.fullmatch(" ".join(words)) is not None


def _type(kind: Any) -> str:
    return str(kind).split()[1]


def _label_name(element: Element) -> str:
    """The property that is read as ``label``, or a new one."""
    name = find_column(element.properties, "label") or "label"
    if is_list(element.properties.get(name)):
        raise ValueError(f"property {name!r} is a list, which no label can replace; rename it")
    return name


def _label_property(old: Any, labels: np.ndarray) -> tuple[Any, np.ndarray]:
    if old is not None and np.array_equal(labels.astype(old.val_dtype), labels):
        return old, labels.astype(old.val_dtype)
    return import_extra("plyfile", "files").PlyProperty("label", "int"), labels


def _field_property(values: np.ndarray) -> Any:
    kind = {"float32": "float", "float64": "double"}[values.dtype.name]
    return import_extra("plyfile", "files").PlyProperty("field", kind)


def _comments(classes: dict[int, str]) -> list[str]:
    lines = [f"class {code} {' '.join(name.split())}" for code, name in sorted(classes.items())]
    return [line.encode("ascii", "replace").decode() for line in lines]


def _property_name(name: str) -> str:
    name = re.sub(r"[^!-~]", "_", name)  # a property's name is one word of ASCII
    return f"scalar_{name}" if name in ("X", "Y", "Z") else name  # else it would be a coordinate


def _property_values(name: str, values: np.ndarray) -> np.ndarray:
    """PLY has no 64-bit integers: they become 32-bit ones, or doubles where those hold them."""
    if values.dtype.kind not in "ui" or values.dtype.itemsize < 8:
        return values
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if low >= -(2**31) and high < 2**31:
        return values.astype(np.int32)
    if max(-low, high) <= 2**53:
        return values.astype(np.float64)
    raise ValueError(f"PLY holds whole numbers to 2**53, field {name!r} has {high}; write .npz")


def _label_values(labels: np.ndarray) -> np.ndarray:
    if len(labels) and not (labels.min() >= -(2**31) and labels.max() < 2**31):
        raise ValueError(f"PLY holds 32-bit labels, got {labels.max()}; write .npz instead")
    return labels.astype(np.int32)
