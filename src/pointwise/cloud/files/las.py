"""LAS, LAZ and COPC: the formats of laser surveys, read and written by laspy."""

from __future__ import annotations

import io
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointwise.atomic import replacing
from pointwise.cloud.files.columns import columns_from_fields, fields_from_columns
from pointwise.cloud.files.las_classes import (
    BY_STANDARD,
    CLASSES,
    UNCLASSIFIED,
    codes_of,
    name_classes,
    names_of,
    new_names,
    numbered_classes,
)
from pointwise.cloud.files.las_columns import INEXACT, grid, holds, las_names, other_labels
from pointwise.cloud.files.las_file import backend, load, save
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.extras import import_extra

EIGHT_BITS = "colours are 8 bits, since none is above 255, though LAS has 16"

# Point formats 0 to 5 give the class five bits of a byte; the format of 6 to 10 that holds the same
# dimensions gives it the whole byte.
LARGER_FORMAT = {0: 6, 1: 6, 2: 7, 3: 7, 4: 9, 5: 10}
_UNITS = {1.0: "m", 0.3048: "ft", 0.3048006: "US ft", 0.0174533: "degree"}
PROJECTED, VERTICAL = 3076, 4099  # GeoTIFF's keys of the units of positions and of heights
SCAN_ANGLE_UNIT = 0.006  # degrees per step of scan_angle in formats 6 to 10; scan_angle_rank has 1
WKT, GEOTIFF = 2112, 34735  # the records of LASF_Projection that hold a coordinate system


def read(path: Path) -> list[Scan]:
    """The one cloud of a LAS, LAZ or COPC file; the class codes 0 and 1 become unlabelled."""
    las = load(path)
    columns = {}
    for name in las.point_format.dimension_names:
        if name not in ("X", "Y", "Z", "classification"):
            columns[name] = np.array(las[name])
    for name in [name for name in columns if name.startswith(INEXACT)]:
        if name.removeprefix(INEXACT) in columns:
            columns[name.removeprefix(INEXACT)] = columns.pop(name)
    codes = np.array(las.classification, dtype=np.int64)
    labels = np.where(np.isin(codes, list(UNCLASSIFIED)), UNLABELLED, codes)
    other = other_labels(columns, (labels != UNLABELLED).any())
    return [
        Scan(
            points=np.stack([las.x, las.y, las.z], axis=1).astype(np.float64),
            fields=fields_from_columns(columns),
            labels=labels if other is None else other,
            classes=names_of(las, codes) if other is None else numbered_classes(other),
            no_class={
                code: (count, f"{name} in the ASPRS standard")
                for code, name in UNCLASSIFIED.items()
                if other is None and (count := int((codes == code).sum()))
            },
            assumed=_assumed(las, codes, columns),
            codes=codes.astype(np.uint8) if other is None and len(codes) else None,
            unit=_units(_records(las))[0],
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
    horizontal, vertical = _units(_records(las))
    if None not in (horizontal, vertical) and horizontal != vertical:
        lines.append(
            f"heights are in {horizontal} as positions are, though the file states {vertical}"
        )
    return tuple(lines)


def write(scan: Scan, path: Path) -> None:
    """Writes LAS 1.4 with every field: LAS's own names as such, the others as extra bytes."""
    laspy = import_extra("laspy", "files")
    _refuse_copc(path)
    header = laspy.LasHeader(point_format=7 if "color" in scan.fields else 6, version="1.4")
    header.offsets, header.scales = grid(scan.points)
    header.global_encoding.wkt = True  # as LAS 1.4 asks of these point formats
    columns = las_names(columns_from_fields(scan.fields, len(scan)), header.point_format)
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
        las.classification = codes_of(scan.labels)
    name_classes(las, {c: n for c, n in scan.classes.items() if CLASSES.get(c) != n})
    save(las, path)


def write_labels(
    source: Path, scan: Scan, labels: np.ndarray, path: Path, fields: dict[str, np.ndarray]
) -> None:
    """Writes ``source`` again with ``labels`` as the classes, and everything else as it was.

    ``fields`` become extra bytes, or the values of those that have such a name.

    A class above 31 in a point format below 6 moves the file to the format of LAS 1.4 that holds
    the same dimensions. COPC becomes LAZ: its octree index is not written.
    """
    _refuse_copc(path)
    codes = codes_of(labels)
    las = load(source)
    names = new_names(las, codes, scan.classes)
    compressed = las.header.are_points_compressed or path.suffix.lower() == ".laz"
    if not (compressed or names or fields or _needs_larger_format(las, codes)):
        _patch(source, path, las.header, codes, bits=5 if las.point_format.id < 6 else 8)
        return
    for lost in _lost(las):
        warnings.warn(f"{path}: {lost}", stacklevel=3)
    save(_with_fields(_labelled(las, codes, names), fields), path)


def write_fields(source: Path, path: Path, fields: dict[str, np.ndarray]) -> None:
    """Writes ``source`` again with ``fields`` as extra bytes, and everything else as it was."""
    _refuse_copc(path)
    las = load(source)
    for lost in _lost(las):
        warnings.warn(f"{path}: {lost}", stacklevel=3)
    _leave_out_copc(las)
    save(_with_fields(las, fields), path)


def check_labels(
    source: Path, scan: Scan, codes: np.ndarray, path: Path, fields: dict[str, np.ndarray]
) -> None:
    """Raises where ``write_labels`` could not write such codes: writes one point, to memory."""
    laspy = import_extra("laspy", "files")
    _refuse_copc(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when the file is written
        codes = codes_of(codes)
    with laspy.open(source, laz_backend=backend()) as reader:
        las = laspy.LasData(reader.header, reader.read_points(1))
    larger = _needs_larger_format(las, codes)
    names = new_names(las, codes, scan.classes)
    # The largest code decides about the format.
    las = _labelled(las, np.full(len(las.points), codes.max() if larger else 0, np.uint8), names)
    las = _with_fields(las, {name: values[: len(las.points)] for name, values in fields.items()})
    las.write(io.BytesIO(), do_compress=path.suffix.lower() == ".laz", laz_backend=backend())


def _needs_larger_format(las: Any, codes: np.ndarray) -> bool:
    return las.point_format.id < 6 and bool(len(codes)) and codes.max() > 31


def _labelled(las: Any, codes: np.ndarray, names: dict[int, str]) -> Any:
    if _needs_larger_format(las, codes):
        las = _with_larger_format(las)
    las.classification = codes
    name_classes(las, names)
    _leave_out_copc(las)
    return las


def _with_fields(las: Any, fields: dict[str, np.ndarray]) -> Any:
    laspy = import_extra("laspy", "files")
    for name, values in fields.items():
        if name in las.point_format.dimension_names:
            dimension = las.point_format.dimension_by_name(name)
            if dimension.kind.name != "FloatingPoint" and values.dtype.kind == "f":
                raise ValueError(
                    f"its dimension {name!r} holds whole numbers, which {name} is not; rename it"
                )
            if values.dtype.kind != "f" and not holds(dimension, values):
                raise ValueError(
                    f"its dimension {name!r} is too small for {values.max()}; rename it"
                )
        else:
            las.add_extra_dim(laspy.ExtraBytesParams(name, values.dtype.newbyteorder("<")))
        las[name] = values
    return las


def _lost(las: Any) -> list[str]:
    """What a file that is written anew does not keep."""
    lost = []
    if any(vlr.user_id == "copc" for vlr in las.header.vlrs):
        lost.append("is written as LAZ: COPC's octree is not kept")
    if las.header.start_of_waveform_data_packet_record:
        lost.append("the waveforms are not kept; their descriptions are")
    return lost


def _leave_out_copc(las: Any) -> None:
    """A file that says it is COPC without COPC's octree is broken for every reader of COPC."""
    las.header.vlrs = _without_copc(las.header.vlrs)
    if las.evlrs is not None:
        las.evlrs = _without_copc(las.evlrs)


def _without_copc(records: Any) -> Any:
    vlrlist = import_extra("laspy.vlrs.vlrlist", "files")
    return vlrlist.VLRList([record for record in records if record.user_id != "copc"])


def linear_unit(path: Path) -> str | None:
    """The horizontal unit (m, ft, US ft, degree) that the file's WKT or GeoTIFF keys state."""
    laspy = import_extra("laspy", "files")
    with laspy.open(path) as reader:
        return _units([*reader.header.vlrs, *(reader.evlrs or [])])[0]


def _records(las: Any) -> list[Any]:
    return [*las.header.vlrs, *(las.evlrs or [])]


def _units(vlrs: Sequence[Any]) -> tuple[str | None, str | None]:
    """The units of positions and of heights that WKT or GeoTIFF keys state."""
    for vlr in vlrs:
        parts = re.split(r"VERT_?CS|VERTCRS", getattr(vlr, "string", ""))
        horizontal, vertical = (
            re.findall(r'UNIT\s*\[\s*"[^"]*"\s*,\s*([0-9.eE+-]+)', part)
            for part in (parts[0], parts[-1] if len(parts) > 1 else "")
        )
        if horizontal:  # the last unit is that of the projected coordinates
            return _unit_of(horizontal[-1]), _unit_of(vertical[-1]) if vertical else None
    keys = {key.id: key.value_offset for vlr in vlrs for key in getattr(vlr, "geo_keys", [])}
    named = {9001: "m", 9002: "ft", 9003: "US ft"}
    return named.get(keys.get(PROJECTED, 0)), named.get(keys.get(VERTICAL, 0))


def _unit_of(factor: str) -> str | None:
    return _UNITS.get(round(float(factor), 7))


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
