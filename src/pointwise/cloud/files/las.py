"""LAS, LAZ and COPC: the formats of laser surveys, read and written by laspy."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import re
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files.columns import (
    LABELS,
    as_labels,
    columns_from_fields,
    fields_from_columns,
)
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
LAYERED = 3  # the way of compressing of LAZ for point formats 6 to 10
LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}  # of LAZ's items Point14, RGB14, RGBNIR14, Wavepacket14
WKT, GEOTIFF = 2112, 34735  # the records of LASF_Projection that hold a coordinate system
_STEPS = 2**31 - 1  # of a coordinate above its offset
# LAZ holds some 150 points in a byte where all of them are the same, and less than 8 elsewhere.
POINTS_PER_BYTE = 256

# The threads that lazrs decompresses with are not there in a process that was forked from one that
# has used them: it would wait for them for ever.
_process = {"forked": multiprocessing.parent_process() is not None}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _process.update(forked=True))


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
    labels = np.where(np.isin(codes, list(UNCLASSIFIED)), UNLABELLED, codes)
    other = _other_labels(columns, (labels != UNLABELLED).any())
    return [
        Scan(
            points=np.stack([las.x, las.y, las.z], axis=1).astype(np.float64),
            fields=fields_from_columns(columns),
            labels=labels if other is None else other,
            classes=_names(las, codes) if other is None else _numbered(other),
            no_class={
                code: (count, f"{name} in the ASPRS standard")
                for code, name in UNCLASSIFIED.items()
                if other is None and (count := int((codes == code).sum()))
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


def _other_labels(columns: dict[str, np.ndarray], classified: bool) -> np.ndarray | None:
    """The labels of an extra dimension called ``label``, ``class``, …; taken from ``columns``.

    They are the labels where LAS's own classification says nothing, and otherwise a field, under
    a name that no format takes for the labels.
    """
    found = taken = None
    for name in [name for name in columns if name.lower().removeprefix(INEXACT) in LABELS]:
        values = columns.pop(name)
        labels = as_labels(values)
        if labels is not None and not classified and found is None:
            warnings.warn(
                f"all points are unclassified in LAS's own dimension, so the labels are those of "
                f"the extra dimension {name!r}",
                stacklevel=4,
            )
            found, taken = labels, name
            continue
        said = f"extra dimension {taken!r}; the" if taken else "LAS's classification; its"
        warnings.warn(
            f"the labels are {said} extra dimension {name!r} is the field 'extra_{name}'",
            stacklevel=4,
        )
        columns[f"extra_{name}"] = values
    return found


def _numbered(codes: np.ndarray) -> dict[int, str]:
    return {code: f"class {code}" for code in np.unique(codes).tolist() if code != UNLABELLED}


def write(scan: Scan, path: Path) -> None:
    """Writes LAS 1.4 with every field: LAS's own names as such, the others as extra bytes."""
    laspy = import_extra("laspy", "files")
    _refuse_copc(path)
    header = laspy.LasHeader(point_format=7 if "color" in scan.fields else 6, version="1.4")
    header.offsets, header.scales = _grid(scan.points)
    header.global_encoding.wkt = True  # as LAS 1.4 asks of these point formats
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
    names = _new_names(las, codes, scan.classes)
    compressed = las.header.are_points_compressed or path.suffix.lower() == ".laz"
    if not (compressed or names or _needs_larger_format(las, codes)):
        _patch(source, path, las.header, codes, bits=5 if las.point_format.id < 6 else 8)
        return
    for lost in _lost(las):
        warnings.warn(f"{path}: {lost}", stacklevel=3)
    _save(_labelled(las, codes, names), path)


def check_labels(source: Path, scan: Scan, codes: np.ndarray, path: Path) -> None:
    """Raises where ``write_labels`` could not write such codes: writes one point, to memory."""
    laspy = import_extra("laspy", "files")
    _refuse_copc(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when the file is written
        codes = _codes(codes)
    with laspy.open(source, laz_backend=_backend()) as reader:
        las = laspy.LasData(reader.header, reader.read_points(1))
    larger = _needs_larger_format(las, codes)
    names = _new_names(las, codes, scan.classes)
    # The largest code decides about the format.
    las = _labelled(las, np.full(len(las.points), codes.max() if larger else 0, np.uint8), names)
    las.write(io.BytesIO(), do_compress=path.suffix.lower() == ".laz", laz_backend=_backend())


def _new_names(las: Any, codes: np.ndarray, classes: dict[int, str]) -> dict[int, str]:
    """The names of the classes that are not in the file yet."""
    known = _names(las, codes)
    wanted = {code: classes[code] for code in np.unique(codes).tolist() if code in classes}
    return {code: name for code, name in wanted.items() if known.get(code) != name}


def _needs_larger_format(las: Any, codes: np.ndarray) -> bool:
    return las.point_format.id < 6 and bool(len(codes)) and codes.max() > 31


def _labelled(las: Any, codes: np.ndarray, names: dict[int, str]) -> Any:
    if _needs_larger_format(las, codes):
        las = _with_larger_format(las)
    las.classification = codes
    _name_classes(las, names)
    # A file that says it is COPC without COPC's octree is broken for every reader of COPC.
    las.header.vlrs = _without_copc(las.header.vlrs)
    if las.evlrs is not None:
        las.evlrs = _without_copc(las.evlrs)
    return las


def _lost(las: Any) -> list[str]:
    """What a file that is written anew does not keep."""
    lost = []
    if any(vlr.user_id == "copc" for vlr in las.header.vlrs):
        lost.append("is written as LAZ: COPC's octree is not kept")
    if las.header.start_of_waveform_data_packet_record:
        lost.append("the waveforms are not kept; their descriptions are")
    return lost


def _without_copc(records: Any) -> Any:
    vlrlist = import_extra("laspy.vlrs.vlrlist", "files")
    return vlrlist.VLRList([record for record in records if record.user_id != "copc"])


def _backend() -> Any:
    """How LAZ is decompressed: by all threads, or by this one in a process that was forked."""
    laspy = import_extra("laspy", "files")
    return laspy.LazBackend.Lazrs if _process["forked"] else laspy.LazBackend.detect_available()


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
    with laspy.open(path, laz_backend=_backend()) as reader:
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
        _check_layers(stream, header, bytes(record), [length for _, length in sizes])
    if sum(length for _, length in sizes) > room:
        raise ValueError(f"truncated: its chunk table says more than the {room} bytes it has")
    largest = max((count for count, _ in sizes), default=0)
    if largest * header.point_format.size > 2**31:
        raise ValueError(f"damaged: a LAZ chunk says {largest} points, most have 50,000")
    if len({count for count, _ in sizes}) > 1:  # else the last one may be filled in part
        count, length = max(sizes, key=lambda chunk: chunk[0] / max(chunk[1], 1))
        if count > POINTS_PER_BYTE * length:
            raise ValueError(f"damaged: a LAZ chunk says {count} points in {length} bytes")
    held = sum(count for count, _ in sizes)
    if POINTS_PER_BYTE * room < header.point_count <= held:
        raise ValueError(f"damaged: the header says {header.point_count} points in {room} bytes")
    return held


def _check_layers(stream: Any, header: Any, record: bytes, lengths: list[int]) -> None:
    """Raises where a chunk says layers that are longer than it is: space for them is reserved.

    In point formats above 5 a chunk is its first point, the number of points, the lengths of the
    layers, the layers.
    """
    compressor, items = struct.unpack_from("<H30xH", record)
    if compressor != LAYERED:
        return
    kinds = [struct.unpack_from("<HH", record, 34 + 6 * k) for k in range(items)]
    layers = sum(LAYERS.get(kind, size) for kind, size in kinds)  # one for each extra byte
    start = header.offset_to_point_data + 8
    head = sum(size for _, size in kinds) + 4
    for length in lengths:
        stream.seek(start + head)
        said = np.frombuffer(stream.read(4 * layers), "<u4").sum(dtype=np.int64)
        if head + 4 * layers + said > length:
            raise ValueError(f"damaged: a LAZ chunk of {length} bytes says layers of {said} bytes")
        start += length


def _check_records(path: Path) -> None:
    """Raises where the header says more VLRs than fit: laspy would read billions of empty ones."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        header = stream.read(247)
    if header[:4] != b"LASF" or len(header) < 227:
        raise ValueError("not a LAS file: it does not begin with a header that says LASF")
    if header[25] > 4 or header[104] & 63 > 10:
        raise ValueError(
            f"LAS 1.{header[25]}, point format {header[104] & 63}: known are LAS 1.0 to 1.4 and "
            "the point formats 0 to 10"
        )
    if 0.0 in struct.unpack_from("<3d", header, 131):
        raise ValueError("damaged: its header scales coordinates by 0")
    (vlrs,) = struct.unpack_from("<I", header, 100)
    (evlrs,) = struct.unpack_from("<I", header, 243) if header[25] >= 4 else (0,)
    if 54 * vlrs + 60 * evlrs > size:  # the bytes of their headers alone
        raise ValueError(f"damaged: the header says {vlrs} VLRs and {evlrs} EVLRs in {size} bytes")


def _save(las: Any, path: Path) -> None:
    with replacing(path) as part:
        las.write(part, laz_backend=_backend())


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
    _state_wkt(larger)
    degrees = np.array(las.scan_angle_rank, dtype=np.float64)
    larger.scan_angle = np.rint(degrees / SCAN_ANGLE_UNIT).astype(np.int16)
    return larger


def _state_wkt(las: Any) -> None:
    """Says that the coordinate system is WKT, as the larger formats ask; GeoTIFF keys are kept."""
    records = [*las.header.vlrs, *(las.evlrs or [])]
    ids = {vlr.record_id for vlr in records if vlr.user_id == "LASF_Projection"}
    las.header.global_encoding.wkt = WKT in ids or GEOTIFF not in ids
    if not las.header.global_encoding.wkt:
        warnings.warn(
            "the coordinate system stays in GeoTIFF keys, where some programs do not look for it "
            "in point formats above 5; class codes up to 31 keep the point format",
            stacklevel=5,
        )


def _grid(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and scales of 32-bit coordinates: 1 mm, or a millionth of a small cloud's extent.

    An axis that is too long for 1 mm has coarser steps, which a warning gives.
    """
    if not len(points):
        return np.zeros(3), np.full(3, 1e-3)
    low = points.min(axis=0)
    with np.errstate(over="ignore"):
        extents = points.max(axis=0) - low
    if not np.isfinite(extents).all():
        raise ValueError(f"LAS holds no coordinates of {low.min():g} beside {points.max():g}")
    extent = float(extents.max())
    scale = 10.0 ** np.floor(np.log10(min(1e-3, extent / 1e6))) if extent > 0 else 1e-3
    # A whole number keeps coordinates that are decimal fractions decimal fractions.
    offsets = np.floor(low) if extent >= 1 else low
    scales = np.full(3, scale)
    long = (extents + (extent >= 1)) / _STEPS > scale
    # From the middle of an axis steps go both ways, so that it may be twice as long.
    offsets[long] += np.floor(extents[long] / 2)
    scales[long] = [_round_up((length + 2) / 2 / _STEPS) for length in extents[long]]
    if (scales > 1e-3).any():
        axis = int(scales.argmax())
        warnings.warn(
            f"{'xyz'[axis]} spans {extents[axis]:.6g}, so LAS's 32 bits keep it to "
            f"{scales[axis]:g} and not to 0.001; leave out points far away, or write .ply or .npz",
            stacklevel=4,
        )
    return offsets, scales


def _round_up(step: float) -> float:
    """The next of 1, 2, 5 mm, 1, 2, 5 cm, …"""
    power = 10.0 ** np.floor(np.log10(step))
    return max(1e-3, next(k * power for k in (1, 2, 5, 10) if k * power >= step))


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
