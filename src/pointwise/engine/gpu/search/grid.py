"""Points sorted into the rows of a grid on a GPU, as ``engine.cpu.search.grid`` does on the CPU.

Where the grid lies follows from the points, so it is known on the device alone: kernels read it
from there. What is wrong with the points is counted too, for whoever reads the results.
"""

from __future__ import annotations

import struct
import weakref
from dataclasses import dataclass
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise import checks
from pointwise.engine.gpu import launch as launching
from pointwise.engine.gpu.launch import pieces
from pointwise.engine.search import INDEX_BITS, KEY_BITS, LARGEST, refuse_point

# δ·(1/pitch) + ½ must be rounded twice, as on the CPU and as the definition says. A fused
# multiply-add rounds once: points on the border of two cells would then lie on either side of it,
# depending on who compiled the kernel. So the searches are compiled without any.
launch = partial(launching.launch, enable_fp_fusion=False)

_POINTS = 256  # of a program, where each is a step of its own
_SLICES = 64  # programs that share the points of one cloud, at most
_OF_SLICE = 4096  # points, from which another program pays
_DOUBLINGS = 1024  # of an edge, more than there are between any two lengths


@dataclass(frozen=True)
class Corners:
    """The box of each cloud, and what is wrong with its points; all on the device.

    ``low`` and ``high [B, 3]`` float64 are (∞, -∞) of an empty cloud; ``faults [2]`` int64 are the
    first point that is not finite or too far away (the number of points if all are fine), and
    whether the offsets are none.
    """

    low: Tensor
    high: Tensor
    faults: Tensor


@dataclass(frozen=True)
class Frame:
    """Where the grid lies: shared by the points and the queries of one search; on the device."""

    origin: Tensor  # [B, 3] float64, the lowest corner of each cloud
    unit: Tensor  # [3] float64, of the indices along x, y, z
    bits: Tensor  # [3] int64, of the indices x, y, z in a key
    coarsened: Tensor  # bool, no dimensions: whether the units are larger than was asked for


@dataclass(frozen=True)
class Grid:
    """One set of points in the order of a frame."""

    frame: Frame
    corners: Corners
    key: Tensor  # [N] int64, (cloud, z, y, x), ascending
    order: Tensor  # [N] int64, the original index of each sorted point
    position: Tensor  # [3, N] float64, sorted

    def __len__(self) -> int:
        return len(self.key)


def bits_of(number: float) -> int:
    """A float64 as kernels are given it: Triton would pass a float of Python's in float32."""
    return int.from_bytes(struct.pack("<d", number), "little")


@triton.jit
def real(bits):
    """The float64 that ``bits_of`` was given."""
    return tl.full([], bits, tl.int64).to(tl.float64, bitcast=True)


@triton.jit(do_not_specialize=["count", "largest"])
def corners_kernel(points, offsets, low, high, refused, count, largest, BLOCK: tl.constexpr):
    """The corners of a slice of one cloud, and its first point that cannot be computed with."""
    largest = real(largest)
    cloud, part, slices = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    # Whoever asks may have given offsets that are none: nothing is read beyond the points.
    first = tl.minimum(tl.maximum(tl.load(offsets + cloud), 0), count)
    last = tl.minimum(tl.maximum(tl.load(offsets + cloud + 1), first), count)
    size = (last - first + slices - 1) // slices
    first = tl.minimum(first + part * size, last)
    last = tl.minimum(first + size, last)
    axis = tl.arange(0, 4)
    lowest = tl.full([BLOCK, 4], float("inf"), tl.float64)
    highest = tl.full([BLOCK, 4], -float("inf"), tl.float64)
    bad = tl.full([BLOCK, 4], 0, tl.int64) + count
    for start in range(first, last, BLOCK):
        i = (start + tl.arange(0, BLOCK)).to(tl.int64)
        inside = (i < last)[:, None] & (axis < 3)[None, :]
        at = points + 3 * i[:, None] + axis[None, :]
        value = tl.load(at, mask=inside, other=0).to(tl.float64)
        fine = tl.abs(value) <= largest  # false for NaN
        lowest = tl.where(inside & fine, tl.minimum(lowest, value), lowest)
        highest = tl.where(inside & fine, tl.maximum(highest, value), highest)
        bad = tl.where(inside & (fine == 0), tl.minimum(bad, i[:, None]), bad)
    out = (cloud * slices + part) * 4 + axis
    tl.store(low + out, tl.min(lowest, axis=0))
    tl.store(high + out, tl.max(highest, axis=0))
    tl.store(refused + out, tl.min(bad, axis=0))


def corners(points: Tensor, offsets: Tensor) -> Corners:
    """The corners of contiguous ``points [N, 3]`` of clouds ``offsets [B+1]``."""
    count, clouds = len(points), len(offsets) - 1
    slices = max(1, min(_SLICES, count // (_OF_SLICE * max(1, clouds))))
    low = points.new_empty(clouds, slices, 4, dtype=torch.float64)
    high = torch.empty_like(low)
    refused = points.new_empty(clouds, slices, 4, dtype=torch.int64)
    launch(corners_kernel, (clouds, slices), points, points, offsets, low, high, refused, count,
           bits_of(LARGEST), BLOCK=_POINTS, num_warps=4)  # fmt: skip
    first = refused.flatten().amin() if clouds else refused.new_full((), count)
    wrong = (offsets[0] != 0) | (offsets[-1] != count) | (offsets.diff() < 0).any()
    faults = torch.stack([first, wrong.long()])
    return Corners(low.amin(1)[:, :3], high.amax(1)[:, :3], faults)


def refuse(caller: str, name: str, points: Tensor, offsets: Tensor, faults: list[int]) -> None:
    """Raises ValueError for what ``Corners.faults``, read, say is wrong."""
    if faults[1]:
        checks.offsets(caller, name, offsets, len(points))
    if faults[0] < len(points):
        refuse_point(caller, points, faults[0])


def make_frame(low: Tensor, high: Tensor, edge: float, step: float) -> Frame:
    """A frame over the clouds' corners, coarsened until an index triple fits one key."""
    clouds = len(low)
    occupied = low.isfinite()
    extent = torch.where(occupied, high - low, 0.0)
    extent = extent.amax(0) if clouds else extent.new_zeros(3)
    unit = torch.full_like(extent, edge)
    unit[:1].fill_(step)
    scale = 2.0 ** torch.arange(_DOUBLINGS, dtype=torch.float64, device=low.device)
    cells = torch.floor(extent / (unit * scale[:, None]))
    widths = torch.frexp(cells).exponent + 1  # one for overflow: rows beside the last are asked for
    fits = widths.sum(1) + max(1, (clouds - 1).bit_length()) <= KEY_BITS
    fits &= widths.amax(1) <= INDEX_BITS
    first = fits.int().argmax(0, keepdim=True)
    return Frame(
        torch.where(occupied, low, 0.0),
        unit * scale.index_select(0, first),
        widths.index_select(0, first)[0].long(),
        first[0] > 0,
    )


@triton.jit
def lower_bound(numbers, low, high, steps, target):
    """The first place from ``low`` to ``high`` whose number is not less than ``target``.

    ``steps`` are enough to halve any of the ranges to nothing.
    """
    for _ in range(steps):
        going = low < high
        middle = low + ((high - low) >> 1)
        less = tl.load(numbers + middle, mask=going, other=0) < target
        low = tl.where(going & less, middle + 1, low)
        high = tl.where(going, tl.where(less, high, middle), high)
    return low


@triton.jit(do_not_specialize=["clouds", "count", "steps"])
def keys_kernel(
    points, offsets, origin, inverse, bits, keys, clouds, count, steps, BLOCK: tl.constexpr
):
    """The key of each point: its cloud, and its indices along z, y and x."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    after = lower_bound(offsets, tl.zeros_like(i), tl.zeros_like(i) + clouds + 1, steps, i + 1)
    cloud = tl.minimum(tl.maximum(after - 1, 0), clouds - 1)
    key = cloud
    for axis in tl.static_range(2, -1, -1):
        value = tl.load(points + 3 * i + axis, mask=inside, other=0).to(tl.float64)
        corner = tl.load(origin + 3 * cloud + axis, mask=inside, other=0)
        width = tl.load(bits + axis)
        top = (tl.full([BLOCK], 1, tl.int64) << width) - 1
        # A point that will be refused has any index, but one that fits.
        index = tl.maximum((value - corner) * tl.load(inverse + axis), 0.0)
        index = tl.where(index <= top.to(tl.float64), index, 0.0)
        key = (key << width) | index.to(tl.int64)
    tl.store(keys + i, key, mask=inside)


def build(points: Tensor, offsets: Tensor, box: Corners, frame: Frame) -> Grid:
    """Sorts contiguous ``points [N, 3]`` of clouds ``offsets [B+1]`` into ``frame``."""
    count, clouds = len(points), len(offsets) - 1
    keys = points.new_empty(count, dtype=torch.int64)
    launch(keys_kernel, (pieces(count, _POINTS),), points, points, offsets, frame.origin,
           1 / frame.unit, frame.bits, keys, clouds, count, (clouds + 1).bit_length(),
           BLOCK=_POINTS, num_warps=4)  # fmt: skip
    # Stable, so that points of one key stay in their own order.
    key, order = torch.sort(keys, stable=True)
    position = points.index_select(0, order).to(torch.float64).t().contiguous()
    return Grid(frame, box, key, order, position)


def build_both(
    points: Tensor,
    point_offsets: Tensor,
    queries: Tensor,
    query_offsets: Tensor,
    edge: float,
    step: float,
) -> tuple[Grid, Grid]:
    """Points and queries in one frame over both."""
    at, point_offsets = points.detach().contiguous(), point_offsets.contiguous()
    seek, query_offsets = queries.detach().contiguous(), query_offsets.contiguous()
    box, other = corners(at, point_offsets), corners(seek, query_offsets)
    low, high = torch.minimum(box.low, other.low), torch.maximum(box.high, other.high)
    frame = make_frame(low, high, edge, step)
    return build(at, point_offsets, box, frame), build(seek, query_offsets, other, frame)


_last: tuple = ()  # (weak references to points and offsets, what is known of both, grid)


def build_once(points: Tensor, offsets: Tensor, edge: float, step: float) -> Grid:
    """The grid of points that are their own queries, which is kept as long as they live.

    The layers of a network search the same points once for each dilation. They are the same if
    PyTorch has not written to them since; of inference tensors nobody knows that.
    """
    global _last
    counted = not (points.is_inference() or offsets.is_inference())
    asked = (edge, step, points._version, offsets._version) if counted else None
    if _last and counted:
        same_points, same_offsets, known, grid = _last
        if same_points() is points and same_offsets() is offsets and known == asked:
            return grid
    at, here = points.detach().contiguous(), offsets.contiguous()
    box = corners(at, here)
    grid = build(at, here, box, make_frame(box.low, box.high, edge, step))
    if counted:
        _last = weakref.ref(points, _forget), weakref.ref(offsets), asked, grid
    return grid


def _forget(points: weakref.ref) -> None:
    global _last
    if _last and _last[0] is points:
        _last = ()
