"""The definitions, as loops in NumPy float64. Imports nothing from the package.

A table of neighbours is an int64 array ``[P, 3]`` of (query, cell, point) in ascending order.
"""

from __future__ import annotations

import numpy as np

# How far a result may be from the exact one, in units of eps·√K·(size of the numbers).
TOLERANCE = 8.0


def neighbours(points, queries, cell_size, kernel_size, dilation, offsets=None, query_offsets=None):
    """Every pair by brute force: the definition's float64 operations in the definition's order."""
    points, queries = np.asarray(points, np.float64), np.asarray(queries, np.float64)
    offsets = [0, len(points)] if offsets is None else offsets
    query_offsets = [0, len(queries)] if query_offsets is None else query_offsets
    centre, pitch = (kernel_size - 1) // 2, dilation * cell_size
    found = []
    for cloud in range(len(offsets) - 1):
        first, last = offsets[cloud], offsets[cloud + 1]
        for query in range(query_offsets[cloud], query_offsets[cloud + 1]):
            delta = points[first:last] - queries[query]
            t = np.floor(delta * (1 / pitch) + 0.5)
            inside = (np.abs(t) <= centre).all(axis=1)
            if dilation > 1:
                rest = delta - t * pitch
                inside &= ((rest >= -cell_size / 2) & (rest < cell_size / 2)).all(axis=1)
            for near in np.flatnonzero(inside):
                x, y, z = (int(value) + centre for value in t[near])
                found.append((query, (z * kernel_size + y) * kernel_size + x, first + near))
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 3)


def turned(table):
    """(point, cell, query), ascending: the table read from the points' side."""
    rows = table[:, [2, 1, 0]]
    return rows[np.lexsort(rows.T[::-1])]


def packed(table, rows, columns):
    """(row_start ``[rows + 1]``, pairs ``[P]`` uint32): cell above, index of ``columns`` below."""
    bits = max(1, (columns - 1).bit_length())
    row_start = np.concatenate(([0], np.cumsum(np.bincount(table[:, 0], minlength=rows))))
    return row_start, ((table[:, 1] << bits) | table[:, 2]).astype(np.uint32)


def _cell_sizes(table):
    """How many points share the cell of each pair."""
    _, inverse, count = np.unique(table[:, :2], axis=0, return_inverse=True, return_counts=True)
    return count[inverse.ravel()]


def _shares(table, mean):
    return 1 / _cell_sizes(table) if mean else np.ones(len(table))


def gather(x, table, rows, cells, mean):
    """A ``[rows, cells, C]``: the mean (or sum) of the features in each cell of each query."""
    out = np.zeros((rows, cells, x.shape[1]))
    for (query, cell, point), share in zip(table, _shares(table, mean), strict=True):
        out[query, cell] += share * x[point].astype(np.float64)
    return out


def gather_adjoint(a, table, points, mean):
    """Gᵀa ``[points, C]`` for a ``[rows, cells, C]``."""
    out = np.zeros((points, a.shape[2]))
    for (query, cell, point), share in zip(table, _shares(table, mean), strict=True):
        out[point] += share * a[query, cell].astype(np.float64)
    return out


def _cell_of(channel, channels, cells):
    """Where a channel of a shift comes from: its own cell, what is left over from the middle."""
    group = channels // cells
    return channel // group if channel < group * cells else cells // 2


def shift(x, table, rows, cells, mean):
    """``[rows, C]``: the mean (or sum) of each channel in its own cell of each query."""
    gathered, channels = gather(x, table, rows, cells, mean), x.shape[1]
    own = [gathered[:, _cell_of(c, channels, cells), c] for c in range(channels)]
    return np.stack(own, axis=1)


def shift_adjoint(a, table, points, cells, mean):
    """The adjoint of ``shift``, ``[points, C]``, for a ``[rows, C]``."""
    rows, channels = a.shape
    wide = np.zeros((rows, cells, channels))
    for c in range(channels):
        wide[:, _cell_of(c, channels, cells), c] = a[:, c]
    return gather_adjoint(wide, table, points, mean)


def cell_conv(x, table, rows, weight, bias, mean):
    """``b + Σ_m W_m · mean_{j in cell m} x_j`` for weight ``[C_out, C_in, k, k, k]``."""
    flat = weight.reshape(*weight.shape[:2], -1).astype(np.float64)
    gathered = gather(x, table, rows, flat.shape[2], mean)
    out = np.zeros((rows, len(weight))) + (0 if bias is None else bias.astype(np.float64))
    for cell in range(flat.shape[2]):
        out += gathered[:, cell] @ flat[:, :, cell].T
    return out


def cell_conv_gradients(grad, x, table, weight, mean):
    """(d x, d weight, d bias) of ``cell_conv`` for the output's gradient ``[rows, C_out]``."""
    flat = weight.reshape(*weight.shape[:2], -1).astype(np.float64)
    grad = grad.astype(np.float64)
    gathered = gather(x, table, len(grad), flat.shape[2], mean)
    d_gathered = np.stack([grad @ flat[:, :, cell] for cell in range(flat.shape[2])], axis=1)
    d_weight = np.stack([grad.T @ gathered[:, cell] for cell in range(flat.shape[2])], axis=2)
    d_x = gather_adjoint(d_gathered, table, len(x), mean)
    return d_x, d_weight.reshape(weight.shape), grad.sum(axis=0)


def depthwise(x, table, rows, weight, mean):
    """``Σ_m w_m ⊙ mean_{j in cell m} x_j`` for weight ``[C, 1, k, k, k]``."""
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    gathered = gather(x, table, rows, flat.shape[1], mean)
    out = np.zeros((rows, len(weight)))
    for cell in range(flat.shape[1]):
        out += gathered[:, cell] * flat[:, cell]
    return out


def depthwise_gradients(grad, x, table, weight, mean):
    """(d x, d weight) of ``depthwise`` for the output's gradient ``[rows, C]``."""
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    grad = grad.astype(np.float64)
    gathered = gather(x, table, len(grad), flat.shape[1], mean)
    d_gathered = np.stack([grad * flat[:, cell] for cell in range(flat.shape[1])], axis=1)
    d_weight = np.stack([(grad * gathered[:, cell]).sum(0) for cell in range(flat.shape[1])], 1)
    return gather_adjoint(d_gathered, table, len(x), mean), d_weight.reshape(weight.shape)


def pointwise(x, weight, bias):
    """``x @ weight.T + bias``."""
    out = x.astype(np.float64) @ weight.astype(np.float64).T
    return out if bias is None else out + bias.astype(np.float64)


def separable(x, table, rows, depthwise_weight, pointwise_weight, bias, mean):
    """The depthwise convolution, then the pointwise one."""
    return pointwise(depthwise(x, table, rows, depthwise_weight, mean), pointwise_weight, bias)


def voxel_grid(points, size, offsets=None):
    """(mean position of each occupied voxel, clouds' offsets, voxel of each point).

    A point's index is ⌊(p - lowest corner of its cloud)·(1/size)⌋; voxels are in the order (cloud,
    z, y, x).
    """
    points = np.asarray(points, np.float64)
    offsets = [0, len(points)] if offsets is None else offsets
    members: dict[tuple, list[int]] = {}
    for cloud in range(len(offsets) - 1):
        here = points[offsets[cloud] : offsets[cloud + 1]]
        for i, point in enumerate(here):
            x, y, z = np.floor((point - here.min(axis=0)) * (1 / size))
            members.setdefault((cloud, z, y, x), []).append(offsets[cloud] + i)
    parent = np.zeros(len(points), dtype=np.int64)
    means = np.zeros((len(members), 3))
    starts = np.zeros(len(offsets), dtype=np.int64)
    for number, key in enumerate(sorted(members)):
        parent[members[key]] = number
        means[number] = points[members[key]].mean(axis=0)
        starts[key[0] + 1 :] += 1
    return means, starts, parent


def terms(table, channels, cells):
    """K of c·eps·√K: how many products one output adds up, at most."""
    fullest = int(np.bincount(table[:, 0]).max(initial=0)) + int(
        np.bincount(table[:, 2]).max(initial=0)
    )
    return max(1, channels) * max(1, cells, fullest)


def assert_close(actual, expected, terms, eps=None, what="result"):
    """Within c·eps·√terms of ``expected``, relative to its largest number; NaN never passes."""
    actual = np.asarray(actual)
    eps = np.finfo(actual.dtype).eps if eps is None else eps
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if expected.size == 0:
        return
    allowed = TOLERANCE * eps * np.sqrt(terms) * max(1.0, np.abs(expected).max())
    error = np.abs(actual.astype(np.float64) - expected)
    wrong = ~(error <= allowed)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: {wrong.sum()} of {wrong.size} wrong; [{where}] is {actual[where]}, expected "
            f"{expected[where]}, allowed error {allowed:.3g}"
        )


def assert_same_table(row_start, pairs, table, rows, columns):
    """Bit for bit the oracle's table; says what is missing (recall) or extra (precision)."""
    expected_start, expected_pairs = packed(table, rows, columns)
    bits = max(1, (columns - 1).bit_length())
    found = np.asarray(pairs).astype(np.int64) & 0xFFFFFFFF
    row = np.repeat(np.arange(rows), np.diff(row_start))
    have = set(map(tuple, np.stack((row, found >> bits, found % (1 << bits)), 1).tolist()))
    want = set(map(tuple, table.tolist()))
    missing, extra = want - have, have - want
    assert not missing, f"recall: {len(missing)} of {len(want)} missing, as {min(missing)}"
    assert not extra, f"precision: {len(extra)} of {len(have)} wrong, as {min(extra)}"
    np.testing.assert_array_equal(row_start, expected_start)
    np.testing.assert_array_equal(found, expected_pairs)
