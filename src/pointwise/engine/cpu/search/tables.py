"""Tables of neighbours in the CPU's memory, read before a kernel follows them.

Nobody can tell whether a tensor's values have changed (``.data``, NumPy and other processes leave
no trace), so a table is read at every call: a quarter of a nanosecond per pair, where its use takes
several.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pointwise.engine.cpu.launch import array, kernel, launch
from pointwise.engine.cpu.layout import Layout

_ROWS = 4096

_SURVEY = Layout("Survey", "*row_start *pairs *found rows length bits points cells")
"""A table of ``rows`` and ``length`` pairs, of so many points and cells; ``found [programs]``."""


@kernel
def _survey(arguments, program, thread):
    """Whether something is wrong with some rows of a table: 0 if not."""
    own = _SURVEY(arguments)
    bits, cells = own.bits, own.cells
    number = min(_ROWS, own.rows - program * _ROWS)
    row_start = array(own.row_start + 8 * program * _ROWS, number + 1, np.int64)
    found = array(own.found + 8 * program, 1, np.int64)
    found[0] = 1
    begin, end = row_start[0], row_start[number]
    falls = 0
    for i in range(number):
        falls += row_start[i + 1] < row_start[i]
    if falls > 0 or begin < 0 or end > own.length:
        return
    pairs = array(own.pairs + 4 * begin, end - begin, np.uint32)
    mask = np.uint32((1 << bits) - 1)
    point, entry = np.uint32(0), np.uint32(0)  # the largest
    for p in range(end - begin):
        point = max(point, pairs[p] & mask)
        entry = max(entry, pairs[p])
    if end > begin and (point >= own.points or np.int64(entry) >> bits >= cells):
        return
    unordered = 0
    if cells > 1:
        # Cells may fall only where a row begins. All are counted, then those are taken back, which
        # leaves two loops without branches.
        shift = np.uint32(bits)
        drops = np.uint32(0)
        for p in range(end - begin - 1):
            drops += np.uint32(pairs[p + 1] >> shift < pairs[p] >> shift)
        unordered = np.int64(drops)
        for i in range(1, number):
            p = row_start[i] - begin
            if 0 < p < row_start[i + 1] - begin:
                unordered -= pairs[p] >> shift < pairs[p - 1] >> shift
    found[0] = unordered


def is_sound(row_start: Tensor, pairs: Tensor, bits: int, points: int, cells: int) -> bool:
    """Whether rows follow each other and pairs name ``points`` and ``cells``, cell by cell."""
    if (int(row_start[0]), int(row_start[-1])) != (0, len(pairs)):
        return False
    rows = len(row_start) - 1
    programs = -(-rows // _ROWS)
    found = np.ones(programs, dtype=np.int64)
    arguments = _SURVEY(
        row_start=row_start.contiguous(),
        pairs=pairs.contiguous(),
        found=found,
        rows=rows,
        length=len(pairs),
        bits=bits,
        points=points,
        cells=cells,
    )
    launch(_survey, arguments, programs)
    return not found.any()
