"""How the work of a convolution is divided among programs, and how its tiles lie in memory."""

from __future__ import annotations

from functools import lru_cache

from pointwise.convolution.window import Window
from pointwise.engine.cpu.gemm import FEW, ROWS
from pointwise.engine.cpu.launch import threads
from pointwise.engine.cpu.product import TILE_ROW
from pointwise.engine.cpu.vector import REGISTER_BYTES
from pointwise.engine.cpu.weights import PackedWeight

# Where programs leave partial sums, the division must not depend on the number of threads.
TEAM = 8
# Beyond, the weight is better read once for many rows than once for each band.
_JOINED_WEIGHT = 2 * 1024 * 1024


def cut_bands(window: Window, bytes_of_row: int, most: int, copies: int = 1) -> tuple[int, int]:
    """(rows in a band, bands in an image): of at most ``most`` bytes, the same for each thread.

    ``copies`` programs make a band.
    """
    lines = window.y.points
    most = max(1, most // max(1, bytes_of_row))
    band = _balanced(lines, most, window.images * copies, threads())
    return band, -(-lines // band)


def cut_lines(window: Window, most: int) -> tuple[int, int]:
    """(lines of an image that one program makes, how many of them at once).

    Whole images where there are enough of them for all threads; otherwise as few strips of an image
    as keep all threads busy, since neighbouring strips make the lines between them twice.
    """
    lines, team = window.y.points, threads()
    strips = 1 if window.images % team == 0 or window.images > 4 * team else team
    share = max(1, -(-lines // strips))
    return share, -(-share // -(-share // most))


def cut_channels(images: int, channels: int, size: int) -> tuple[int, int]:
    """(channels to a program, programs to an image) where pixels are added up: whole cache lines.

    ``size`` is a number's in bytes; there are four programs to a thread, or as many as can be.
    """
    line, block = 64 // size, channels
    while block > line and images * -(-channels // block) < 4 * threads():
        block = -(-block // 2 // line) * line
    return block, -(-channels // block)


@lru_cache(maxsize=4096)
def _balanced(lines: int, most: int, images: int, team: int) -> int:
    """How many of the ``lines`` of an image to a program, so that the busiest thread has least.

    To begin a program takes some part of a line's time: 683 lines, a prime number, are no 683
    programs. Of several answers the largest, which reads weights least often.
    """
    if lines == 0:
        return 1
    return min(
        range(1, min(lines, most) + 1),
        key=lambda band: (-(-images * -(-lines // band) // team) * (16 * band + 1), -band),
    )


def row_stride(needed: int) -> int:
    """The bytes from row to row of a gathered tile: an odd number of cache lines in any case.

    Rows that nearly fill it get the stride that is compiled into the microkernel.
    """
    return TILE_ROW if TILE_ROW // 2 <= needed <= TILE_ROW - 64 else odd_lines(needed)


def odd_lines(needed: int) -> int:
    """At least so many bytes, an odd number of cache lines: so rows do not share cache sets."""
    return (-(-needed // 64) | 1) * 64


@lru_cache(maxsize=4096)
def cut_points(
    points: int, depth: int, columns: int, groups: int, size: int, identity: bool, team: int
) -> tuple[int, int]:
    """(rows, columns) that one program computes.

    As many rows as leave the gathered values in the second-level cache beside a panel of the
    weight, all columns; then halved, until every thread has some programs.
    """
    row_bytes = depth * size
    span = ROWS * max(1, min(64, 256 * 1024 // (ROWS * row_bytes)))
    span = min(span, -(-points // ROWS) * ROWS)
    panel = 2 * REGISTER_BYTES // size
    block = -(-columns // panel) * panel
    while groups * -(-points // span) * -(-columns // block) < 4 * team:
        weight_bytes = row_bytes * block
        if identity and block > panel and weight_bytes > 4 * span * row_bytes:
            block = -(-block // 2 // panel) * panel
        elif span > ROWS:
            span = -(-span // 2 // ROWS) * ROWS
        elif identity and block > 2 * panel:
            block = -(-block // 2 // panel) * panel
        else:
            break
    copies = groups * -(-columns // block)
    return ROWS * _balanced(-(-points // ROWS), span // ROWS, copies, team), block


@lru_cache(maxsize=4096)
def cut_tiles(total: int, columns: int, tile_bytes: int, panel: int, team: int) -> tuple[int, int]:
    """(tiles, columns) that one program of Winograd's loop computes.

    Programs with other columns of the same tiles transform them again.
    """
    most = ROWS * max(1, 512 * 1024 // (ROWS * tile_bytes))
    panels = -(-columns // panel)
    transform = 16  # columns, as long as which it takes to transform a tile
    reading = 2  # rows, as long as which it takes at least to read a weight

    def cost(cut: tuple[int, int]) -> tuple[int, int, int]:
        span, share = cut
        programs = -(-total // span) * -(-panels // share)
        rows, rest = span // ROWS * ROWS, span % ROWS
        rows += FEW if 0 < rest <= FEW else ROWS if rest else 0
        if ROWS < span <= 2 * FEW:
            rows = 2 * FEW
        each = (rows + reading) * share * panel + rows * transform
        return -(-programs // team) * each, -share, -span

    shares = {-(-panels // cuts) for cuts in range(1, min(panels, team) + 1)}
    spans = {-(-total // cuts) for cuts in range(1, 2 * team + 1)}
    spans |= set(range(ROWS, -(-total // ROWS) * ROWS + 1, ROWS))
    cuts = ((min(span, most), share) for span in spans for share in shares)
    span, share = min(cuts, key=cost)
    return span, share * panel


def is_better_joined(then: PackedWeight) -> bool:
    """Whether a stencil and what follows it are faster in one tile loop than one by one."""
    return then.packed.numel() * then.packed.element_size() <= _JOINED_WEIGHT


# Less than so much is not worth a program of its own.
_LEAST_BYTES = 16 * 1024


def cut_rows(rows: int, row_bytes: int) -> int:
    """Rows of a program: several programs for each thread, none of them tiny."""
    least = -(-_LEAST_BYTES // max(1, row_bytes))
    return max(1, least, -(-rows // (8 * threads())))
