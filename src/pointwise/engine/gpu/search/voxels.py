"""A voxel grid on a GPU: one point for each occupied cube, at the mean of the points inside."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise import checks
from pointwise.engine.gpu.launch import pieces
from pointwise.engine.gpu.search.grid import build, corners, launch, make_frame, refuse
from pointwise.engine.search import check_size

_VOXELS = 64  # of a program


@triton.jit(do_not_specialize=["points", "voxels"])
def sums_kernel(position, starts, sums, points, voxels, BLOCK: tl.constexpr):
    """The sums of the positions in each voxel, point by point: the same bits as on the CPU."""
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = v < voxels
    first = tl.load(starts + v, mask=inside, other=0)
    length = tl.load(starts + v + 1, mask=inside, other=0) - first
    x = tl.zeros([BLOCK], tl.float64)
    y, z = x, x
    stride = points.to(tl.int64)
    for i in range(tl.max(length)):
        live = i < length
        x += tl.load(position + first + i, mask=live, other=0)
        y += tl.load(position + stride + first + i, mask=live, other=0)
        z += tl.load(position + 2 * stride + first + i, mask=live, other=0)
    out = sums + 3 * v.to(tl.int64)
    tl.store(out, x, mask=inside)
    tl.store(out + 1, y, mask=inside)
    tl.store(out + 2, z, mask=inside)


def voxel_grid(points: Tensor, offsets: Tensor, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """What ``engine.cpu.search.voxels.voxel_grid`` gives, bit for bit.

    The CPU waits once, for the number of voxels.
    """
    checks.offsets("voxel_grid", "offsets", offsets, len(points), values=False)
    checks.same_device("voxel_grid", "offsets", offsets, "points", points)
    check_size("voxel_grid", size)
    at, offsets, count = points.detach().contiguous(), offsets.contiguous(), len(points)
    box = corners(at, offsets)
    if count == 0 or len(box.low) == 0:
        refuse("voxel_grid", "offsets", points, offsets, box.faults.tolist())
        parent = offsets.new_zeros(0)
        return points.new_zeros(0, 3), torch.zeros_like(offsets), parent
    frame = make_frame(box.low, box.high, size, size)
    grid = build(at, offsets, box, frame)
    new = grid.key[1:] != grid.key[:-1]
    number = _numbered(new)
    *faults, coarsened, voxels = torch.stack(
        [*box.faults.unbind(), frame.coarsened.long(), number[-1] + 1]
    ).tolist()
    refuse("voxel_grid", "offsets", points, offsets, faults)
    order, position = grid.order, grid.position
    if coarsened:
        order, new = _sorted_one_by_one(at, offsets, box.low, size)
        number = _numbered(new)
        voxels = int(number[-1]) + 1
        position = at.index_select(0, order).to(torch.float64).t().contiguous()
    edges = torch.arange(voxels + 1, device=at.device)
    starts = torch.searchsorted(number, edges)
    sums = torch.empty(voxels, 3, dtype=torch.float64, device=at.device)
    launch(sums_kernel, (pieces(voxels, _VOXELS),), at, position, starts, sums, count, voxels,
           BLOCK=_VOXELS, num_warps=1)  # fmt: skip
    mean = (sums / starts.diff()[:, None]).to(points.dtype)
    parent = torch.empty_like(number).scatter_(0, order, number)
    return mean, torch.searchsorted(starts[:-1], offsets), parent


def _numbered(new: Tensor) -> Tensor:
    """The voxel of each sorted point ``[N]``, from whether each but the first begins a new one."""
    return torch.cat([new.new_zeros(1, dtype=torch.int64), new.cumsum(0)])


def _sorted_one_by_one(
    points: Tensor, offsets: Tensor, low: Tensor, size: float
) -> tuple[Tensor, Tensor]:
    """The order, and which points begin a voxel, where indices do not fit one key: slower."""
    places = torch.arange(len(points), device=points.device)
    cloud = torch.searchsorted(offsets, places, right=True) - 1
    index = torch.floor((points.to(torch.float64) - low[cloud]) * (1 / size))
    order = places
    for key in (*index.unbind(1), cloud):  # x first: what is sorted last decides
        order = order[torch.sort(key[order], stable=True).indices]
    places = torch.column_stack([cloud.to(torch.float64), index])[order]
    return order, (places[1:] != places[:-1]).any(1)
