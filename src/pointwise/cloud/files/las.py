"""LAS, LAZ and COPC: the formats of laser surveys, read and written by laspy."""

from __future__ import annotations

import logging
import re
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files.columns import columns_from_fields, fields_from_columns
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.extras import import_extra

# ASPRS LAS 1.4, of point formats 6 to 10. Codes from 19 on were reserved before revision 14, or
# are free, and no header tells which revision it follows.
CLASSES = {
    2: "ground",
    3: "low vegetation",
    4: "medium vegetation",
    5: "high vegetation",
    6: "building",
    7: "low noise",
    8: "model key-point",
    9: "water",
    10: "rail",
    11: "road surface",
    12: "overlap",
    13: "wire guard",
    14: "wire conductor",
    15: "transmission tower",
    16: "wire connector",
    17: "bridge deck",
    18: "high noise",
}
SMALL_CLASSES = (*range(2, 10), 12)  # of them, those that point formats 0 to 5 define
UNCLASSIFIED = {0: "never classified", 1: "unclassified"}  # no class
BY_STANDARD = "codes 0 and 1 are no class and class names are the ASPRS standard's"
EIGHT_BITS = "colours are 8 bits, since none is above 255, though LAS has 16"

# The values of a field that LAS's own dimension of that name cannot hold (an intensity of 0.3, say)
# go to extra bytes under the name with CloudCompare's prefix for a scalar, and come back by it.
INEXACT = "scalar_"

# Point formats 0 to 5 give the class five bits of a byte; the format of 6 to 10 that holds the same
# dimensions gives it the whole byte.
LARGER_FORMAT = {0: 6, 1: 6, 2: 7, 3: 7, 4: 9, 5: 10}
_UNITS = {1.0: "m", 0.3048: "ft", 0.3048006: "US ft", 0.0174533: "degree"}
SCAN_ANGLE_UNIT = 0.006  # degrees per step of scan_angle in formats 6 to 10; scan_angle_rank has 1


def read(path: Path) -> list[Scan]:
    """The one cloud of a LAS, LAZ or COPC file; the class codes 0 and 1 become unlabelled."""
    las = _load(path)
    columns = {}
    for name in las.point_format.dimension_names:
        if name not in ("X", "Y", "Z", "classification"):
            columns[name] = np.array(las[name])
    for name in [name for name in columns if name.startswith(INEXACT)]:
        if name.removeprefix(INEXACT) in columns:
            columns[name.removeprefix(INEXACT)] = columns.pop(name)
    codes = np.array(las.classification, dtype=np.int64)
    return [
        Scan(
            points=np.stack([las.x, las.y, las.z], axis=1).astype(np.float64),
            fields=fields_from_columns(columns),
            labels=np.where(np.isin(codes, list(UNCLASSIFIED)), UNLABELLED, codes),
            classes=_names(las, codes),
            no_class={
                code: (count, f"{name} in the ASPRS standard")
                for code, name in UNCLASSIFIED.items()
                if (count := int((codes == code).sum()))
            },
            assumed=_assumed(las, codes, columns),
        )
    ]


def _assumed(las: Any, codes: np.ndarray, columns: dict[str, np.ndarray]) -> tuple[str, ...]:
    """What the file does not say: that its classes are ASPRS's, its colours of 8 bits."""
    lines = []
    if len(codes) and codes.any() and not las.header.vlrs.get("ClassificationLookupVlr"):
        lines.append(BY_STANDARD)
    colors = [columns[name] for name in ("red", "green", "blue") if name in columns]
    if colors and 0 < max(values.max(initial=0) for values in colors) <= 255:
        lines.append(EIGHT_BITS)
    return tuple(lines)


def write(scan: Scan, path: Path) -> None:
    """Writes LAS 1.4 with every field: LAS's own names as such, the others as extra bytes."""
    laspy = import_extra("laspy", "files")
    _refuse_copc(path)
    header = laspy.LasHeader(point_format=7 if "color" in scan.fields else 6, version="1.4")
    header.offsets, header.scales = _grid(scan.points)
    columns = _las_names(columns_from_fields(scan.fields, len(scan)), header.point_format)
    own = set(header.point_format.dimension_names)
    for name in columns.keys() - own:
        if len(name.encode()) > 32:
            raise ValueError(f"LAS holds field names of 32 bytes, got {name!r}; shorten it")
    extra = [name for name in columns if name not in own]
    header.add_extra_dims(
        [laspy.ExtraBytesParams(name, columns[name].dtype.newbyteorder("<")) for name in extra]
    )
    las = laspy.LasData(header)
    las.x, las.y, las.z = scan.points.T
    las.return_number[:] = las.number_of_returns[:] = 1  # 0 is no return number in LAS
    for name, values in columns.items():
        las[name] = values
    if scan.labels is not None:
        las.classification = _codes(scan.labels)
    _name_classes(las, {c: n for c, n in scan.classes.items() if CLASSES.get(c) != n})
    _save(las, path)


def write_labels(source: Path, scan: Scan, labels: np.ndarray, path: Path) -> None:
    """Writes ``source`` again with ``labels`` as the classes, and everything else as it was.

    A class above 31 in a point format below 6 moves the file to the format of LAS 1.4 that holds
    the same dimensions. COPC becomes LAZ: its octree index is not written.
    """
    _refuse_copc(path)
    codes = _codes(labels)
    las = _load(source)
    known = _names(las, codes)
    renamed = {c: scan.classes[c] for c in np.unique(codes).tolist() if c in scan.classes}
    renamed = {c: name for c, name in renamed.items() if known.get(c) != name}
    small = las.point_format.id < 6
    larger = small and bool(len(codes)) and codes.max() > 31
    if not (las.header.are_points_compressed or path.suffix.lower() == ".laz" or larger or renamed):
        _patch(source, path, las.header, codes, bits=5 if small else 8)
        return
    if larger:
        las = _with_larger_format(las)
    las.classification = codes
    _name_classes(las, renamed)
    _save(las, path)


def linear_unit(path: Path) -> str | None:
    """The horizontal unit (m, ft, US ft, degree) that the file's WKT or GeoTIFF keys state."""
    laspy = import_extra("laspy", "files")
    with laspy.open(path) as reader:
        vlrs = [*reader.header.vlrs, *(reader.evlrs or [])]
    for vlr in vlrs:
        horizontal = re.split(r"VERT_?CS|VERTCRS", getattr(vlr, "string", ""))[0]
        factors = re.findall(r'UNIT\s*\[\s*"[^"]*"\s*,\s*([0-9.eE+-]+)', horizontal)
        if factors:  # the last unit is that of the projected coordinates
            return _UNITS.get(round(float(factors[-1]), 7))
    keys = {key.id: key.value_offset for vlr in vlrs for key in getattr(vlr, "geo_keys", [])}
    return {9001: "m", 9002: "ft", 9003: "US ft"}.get(keys.get(3076, 0))  # ProjLinearUnitsGeoKey


def _load(path: Path) -> Any:
    laspy = import_extra("laspy", "files")
    # Without a handler laspy's log lines would reach stderr beside the error that is raised.
    logging.getLogger("laspy").addHandler(logging.NullHandler())
    _check_records(path)
    with laspy.open(path) as reader:
        held = _points_held(path, reader.header)
        if reader.header.point_count > held:
            raise ValueError(
                f"truncated: the header says {reader.header.point_count} points, "
                f"the file has room for {held}"
            )
        las = reader.read()
    if len(las.points) != las.header.point_count:
        raise ValueError(
            f"truncated: the header says {las.header.point_count} points, "
            f"{len(las.points)} could be read"
        )
    return las


def _points_held(path: Path, header: Any) -> int:
    """The most points the file can have; raises where its LAZ chunks are longer than it is.

    lazrs ends the process when it cannot reserve what a damaged header or chunk table says.
    """
    room = max(path.stat().st_size - header.offset_to_point_data, 0)
    if not header.are_points_compressed:
        return room // header.point_format.size
    if not header.point_count:
        return 0
    lazrs = import_extra("lazrs", "files")
    with open(path, "rb") as stream:
        stream.seek(header.offset_to_point_data)
        (table,) = struct.unpack("<q", stream.read(8))
        if table == -1:  # written to a stream: the offset came last
            stream.seek(-8, 2)
            (table,) = struct.unpack("<q", stream.read(8))
        stream.seek(max(table, 0))
        _, chunks = struct.unpack("<II", stream.read(8))
        if chunks > room:
            raise ValueError(f"damaged: its chunk table says {chunks} chunks in {room} bytes")
        stream.seek(header.offset_to_point_data)
        record = header.vlrs.get("LasZipVlr")[0].record_data
        sizes = lazrs.read_chunk_table(stream, lazrs.LazVlr(record))
    if sum(length for _, length in sizes) > room:
        raise ValueError(f"truncated: its chunk table says more than the {room} bytes it has")
    largest = max((count for count, _ in sizes), default=0)
    if largest * header.point_format.size > 2**31:
        raise ValueError(f"damaged: a LAZ chunk says {largest} points, most have 50,000")
    return sum(count for count, _ in sizes)


def _check_records(path: Path) -> None:
    """Raises where the header says more VLRs than fit: laspy would read billions of empty ones."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        header = stream.read(247)
    if header[:4] != b"LASF" or len(header) < 227:
        raise ValueError("not a LAS file: it does not begin with a header that says LASF")
    (vlrs,) = struct.unpack_from("<I", header, 100)
    (evlrs,) = struct.unpack_from("<I", header, 243) if header[25] >= 4 else (0,)
    if 54 * vlrs + 60 * evlrs > size:  # the bytes of their headers alone
        raise ValueError(f"damaged: the header says {vlrs} VLRs and {evlrs} EVLRs in {size} bytes")


def _save(las: Any, path: Path) -> None:
    # A file that says it is COPC without COPC's octree is broken for every reader of COPC.
    las.header.vlrs = [vlr for vlr in las.header.vlrs if vlr.user_id != "copc"]
    if las.evlrs is not None:
        las.evlrs = [vlr for vlr in las.evlrs if vlr.user_id != "copc"]
    with replacing(path) as part:
        las.write(part)


def _refuse_copc(path: Path) -> None:
    if path.name.lower().endswith(".copc.laz"):
        raise ValueError("COPC is read but not written; name the file .laz instead of .copc.laz")


def _patch(source: Path, path: Path, header: Any, codes: np.ndarray, bits: int) -> None:
    """Copies the file and sets the class bits, so that what laspy drops stays too (waveforms)."""
    mask = (1 << bits) - 1
    with replacing(path) as part:
        shutil.copyfile(source, part)
        if not len(codes):
            return
        shape = (len(codes), header.point_format.size)
        offset = header.offset_to_point_data
        records = np.memmap(part, np.uint8, mode="r+", offset=offset, shape=shape)
        column = 15 if bits == 5 else 16
        records[:, column] = (records[:, column] & ~np.uint8(mask)) | codes
        records.flush()
        del records


def _codes(labels: np.ndarray) -> np.ndarray:
    codes = np.where(labels == UNLABELLED, 0, labels)
    if len(codes) and not (codes.min() >= 0 and codes.max() <= 255):
        wrong = codes[(codes < 0) | (codes > 255)][0]
        raise ValueError(f"LAS holds class codes 0 to 255, got {wrong}; write .ply or .npz instead")
    if np.isin(labels, list(UNCLASSIFIED)).any():
        warnings.warn(
            "class codes 0 and 1 mean unclassified in LAS, and come back as unlabelled; "
            "add 2 to the codes, or write .ply or .npz",
            stacklevel=4,
        )
    return codes.astype(np.uint8)


def _names(las: Any, codes: np.ndarray) -> dict[int, str]:
    """The names of classes: the file's own, else the standard's where its point format has one."""
    names = dict(CLASSES)
    if las.point_format.id < 6:
        names = {code: CLASSES[code] for code in SMALL_CLASSES}
    for vlr in las.header.vlrs.get("ClassificationLookupVlr"):
        names.update({c: n for c, n in vlr.lookups.items() if n and c not in UNCLASSIFIED})
    for code in np.unique(codes).tolist():
        if code not in names and code not in UNCLASSIFIED and code != UNLABELLED:
            names[code] = f"class {code}"
    return names


def _name_classes(las: Any, names: dict[int, str]) -> None:
    """Adds names to the file's classification lookup, which holds 15 ASCII letters of each."""
    lookup = import_extra("laspy.vlrs.known", "files").ClassificationLookupVlr()
    for vlr in las.header.vlrs.extract("ClassificationLookupVlr"):
        lookup.lookups.update(vlr.lookups)
    for code, name in names.items():
        if 0 <= code <= 255:
            lookup[code] = name.encode("ascii", "replace")[:15].decode()
    if lookup.lookups:
        las.header.vlrs.append(lookup)


def _with_larger_format(las: Any) -> Any:
    laspy = import_extra("laspy", "files")
    larger = laspy.convert(las, point_format_id=LARGER_FORMAT[las.point_format.id])
    degrees = np.array(las.scan_angle_rank, dtype=np.float64)
    larger.scan_angle = np.rint(degrees / SCAN_ANGLE_UNIT).astype(np.int16)
    return larger


def _grid(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and scales of 32-bit coordinates: 1 mm, or a millionth of a small cloud's extent."""
    if not len(points):
        return np.zeros(3), np.full(3, 1e-3)
    low = points.min(axis=0)
    extent = float((points.max(axis=0) - low).max())
    # A whole number keeps coordinates that are decimal fractions decimal fractions.
    offsets = np.floor(low) if extent >= 1 else low
    finest = (extent + 1) / (2**31 - 1) if extent >= 1 else extent / (2**31 - 1)
    wanted = min(1e-3, extent / 1e6) if extent > 0 else 1e-3
    scale = 10.0 ** np.floor(np.log10(wanted))
    if scale < finest:
        scale = 10.0 ** np.ceil(np.log10(finest))
    return offsets, np.full(3, scale)


def _las_names(columns: dict[str, np.ndarray], point_format: Any) -> dict[str, np.ndarray]:
    """Columns under LAS's and PDAL's names and with 16-bit colours."""
    renamed = {"nx": "NormalX", "ny": "NormalY", "nz": "NormalZ"}
    own = {dimension.name: dimension for dimension in point_format.dimensions}
    named = {}
    for given, values in columns.items():
        name = renamed.get(given, given)
        if name in ("red", "green", "blue"):
            values = values.astype(np.uint16) * 257  # 255 becomes 65535
        elif name in ("X", "Y", "Z", "classification") or (
            name in own and not _holds(own[name], values)
        ):
            name = INEXACT + name
        named[name] = values
    return named


def _holds(dimension: Any, values: np.ndarray) -> bool:
    """Whether LAS's own dimension holds the values as they are."""
    if dimension.kind.name == "FloatingPoint" or not len(values):
        return True
    whole = np.array_equal(values, np.rint(values))
    return bool(whole and values.min() >= dimension.min and values.max() <= dimension.max)
