"""The vector type: every operation lane by lane, and nothing touched outside its lanes."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from numba import njit

from pointwise.engine.cpu import vector as v
from pointwise.engine.cpu.compress import compress_store

FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def address(values: np.ndarray) -> int:
    return values.ctypes.data


def some(dtype, count, seed=0):
    return np.random.default_rng(seed).normal(0, 3, count).astype(dtype)


def width(dtype) -> int:
    return v.lanes(np.dtype(dtype))


@njit
def _copy_first(source, target, count, like):
    v.store_first(target, v.load_first(source, count, like), count)


@njit
def _copy_first_whole(source, target, count, like):
    v.store(target, v.load_first(source, count, like))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint32])
def test_first_lanes_only(dtype):
    lanes = width(dtype)
    source = (some(np.float64, lanes) * 100).astype(dtype)
    for count in range(-1, lanes + 3):
        inside = min(max(count, 0), lanes)
        target = np.full(lanes + 8, 77, dtype)
        _copy_first(address(source), address(target), count, dtype(0))
        np.testing.assert_array_equal(target[:inside], source[:inside])
        assert (target[inside:] == 77).all(), "store_first wrote behind its lanes"
        _copy_first_whole(address(source), address(target), count, dtype(0))
        np.testing.assert_array_equal(target[:inside], source[:inside])
        assert (target[inside:lanes] == 0).all(), "load_first has to leave zeros"


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="needs POSIX memory protection")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint32])
def test_first_lanes_at_the_end_of_a_page(dtype):
    # The page behind may not be touched: reading or writing there ends the process.
    import ctypes

    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert protect(start + page, page, 0) == 0
    values = np.frombuffer(memory, dtype, count=page // np.dtype(dtype).itemsize)
    lanes = width(dtype)
    values[-2 * lanes :] = np.arange(2 * lanes)
    size = values.itemsize
    for count in range(lanes + 1):
        place = start + page - count * size
        _copy_first(place, place, count, dtype(0))
        target = np.zeros(lanes, dtype)
        _copy_first(place, address(target), count, dtype(0))
        np.testing.assert_array_equal(target[:count], values[len(values) - count :])
    protect(start + page, page, mmap.PROT_READ | mmap.PROT_WRITE)


@njit
def _arithmetic(a, b, c, out, like):
    size = v.bytes_of(like) * v.lanes_of(like)
    x, y, z = v.load(a, like), v.load(b, like), v.load(c, like)
    v.store(out, x + y)
    v.store(out + size, x - y)
    v.store(out + 2 * size, x * y)
    v.store(out + 3 * size, v.fma(x, y, z))
    v.store(out + 4 * size, v.floor(x))
    v.store(out + 5 * size, v.magnitude(x))
    v.store(out + 6 * size, v.smaller(x, y))
    v.store(out + 7 * size, v.larger(x, y))
    v.store(out + 8 * size, v.broadcast(v.number(3, like)))


@FLOATS
def test_arithmetic(dtype):
    lanes = width(dtype)
    a, b, c = (some(dtype, lanes, seed) for seed in range(3))
    out = np.zeros((9, lanes), dtype)
    _arithmetic(address(a), address(b), address(c), address(out), dtype(0))
    expected = [a + b, a - b, a * b, None, np.floor(a), np.abs(a), np.minimum(a, b)]
    expected += [np.maximum(a, b), np.full(lanes, 3, dtype)]
    for row, wanted in enumerate(expected):
        if wanted is not None:
            np.testing.assert_array_equal(out[row], wanted)
    if dtype == np.float32 and v._FMA == "fma":
        # The product of two float32 is exact in float64: one rounding.
        once = (a.astype(np.float64) * b + c).astype(np.float32)
        np.testing.assert_array_equal(out[3], once)
    else:
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(out[3], a * b + c, rtol=45 * eps, atol=45 * eps)


@njit
def _masks(a, b, count, like):
    x, y = v.load(a, like), v.load(b, like)
    return (
        v.bits(v.less(x, y)),
        v.bits(v.at_most(x, y)),
        v.bits(v.equal(x, y)),
        v.bits(v.first(count, like)),
        v.bits(v.less(x, y) & v.first(count, like)),
        v.count_bits(v.bits(v.at_most(x, y))),
    )


def _bits(mask) -> int:
    return sum(1 << lane for lane, value in enumerate(mask) if value)


@FLOATS
def test_masks(dtype):
    lanes = width(dtype)
    a, b = some(dtype, lanes, 3), some(dtype, lanes, 4)
    b[1] = a[1]
    a[0] = np.nan
    for count in (0, 1, lanes - 1, lanes):
        found = _masks(address(a), address(b), count, dtype(0))
        front = np.arange(lanes) < count
        assert found == (
            _bits(a < b),
            _bits(a <= b),
            _bits(a == b),
            _bits(front),
            _bits((a < b) & front),
            (a <= b).sum(),
        )


@njit
def _unsigned_less(a, b):
    like = np.uint32(0)
    return v.bits(v.less(v.load(a, like), v.load(b, like)))


def test_unsigned_integers_compare_as_unsigned():
    lanes = width(np.uint32)
    a = np.full(lanes, 1, np.uint32)
    b = np.full(lanes, 0xFFFFFFFF, np.uint32)
    b[0] = 0
    assert _unsigned_less(address(a), address(b)) == (1 << lanes) - 2


@njit
def _compress(source, target, limit, like):
    value = v.load(source, like)
    compress_store(target, value, v.less(value, v.broadcast(limit)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint32])
def test_compress_store(dtype):
    """Every mask, or many where there are too many."""
    lanes = width(dtype)
    numbers = np.arange(1, lanes + 1).astype(dtype)
    for mask in range(1 << lanes) if lanes <= 8 else range(0, 1 << lanes, 211):
        kept = (mask >> np.arange(lanes)) & 1 == 1
        values = np.where(kept, numbers, numbers + 100).astype(dtype)
        target = np.zeros(lanes, dtype)
        _compress(address(values), address(target), dtype(100), dtype(0))
        np.testing.assert_array_equal(target[: kept.sum()], numbers[kept])


@njit
def _compress_halves(source, target, mask, like):
    """Of 32 bits, as many lanes as there are float64."""
    whole = v.to_uint32(v.load(source, 0.0))
    compress_store(target, whole, v.less(v.load(mask, 0.0), v.broadcast(0.5)))


def test_compress_store_of_half_a_register():
    lanes = width(np.float64)
    values = np.arange(lanes).astype(np.float64) + 7
    for mask in range(1 << lanes):
        kept = (mask >> np.arange(lanes)) & 1 == 1
        left_out = np.where(kept, 0.0, 1.0)
        target = np.zeros(2 * lanes, np.uint32)
        _compress_halves(address(values), address(target), address(left_out), 0.0)
        np.testing.assert_array_equal(target[: kept.sum()], values[kept])


@njit
def _to_integers(source, target):
    whole = v.to_uint32(v.load(source, 0.0))
    v.store(target, whole | v.broadcast(np.uint32(0)) if False else whole)


def test_to_uint32_keeps_all_32_bits():
    lanes = width(np.float64)
    values = np.linspace(0, 0xFFFFFFFF, lanes).round()
    target = np.zeros(lanes, np.uint32)
    _to_integers(address(values), address(target))
    np.testing.assert_array_equal(target, values.astype(np.uint32))


@njit
def _whole_numbers(a, b, target, count):
    """Four registers: the nearest whole numbers, shifted, from another, and with ones added."""
    like, whole = np.float32(0), np.uint32(0)
    step = 4 * v.lanes_of(like)
    x = v.load(a, like)
    v.store(target, v.nearest(x))
    v.store(target + step, v.shifted(v.small_uint32(x), count))
    v.store(target + 2 * step, v.offset(v.load(b, whole), v.counting(np.uint32(7))))
    v.store(target + 3 * step, v.one_more(v.load(b, whole), v.less(x, v.broadcast(like))))


@pytest.mark.parametrize("count", [0, 3, 20])
def test_whole_numbers(count):
    lanes = width(np.float32)
    a = np.array([-2.5, -1.5, 0.5, 3.0] * (lanes // 4), np.float32)
    b = np.arange(lanes, dtype=np.uint32) * 3
    target = np.zeros((4, lanes), np.float32)
    _whole_numbers(address(np.abs(a)), address(b), address(target), count)
    np.testing.assert_array_equal(target[0], np.abs(a).round())  # NumPy too goes to the even one
    np.testing.assert_array_equal(target[1].view(np.uint32), np.abs(a).astype(np.uint32) << count)
    np.testing.assert_array_equal(target[2], 2.0 * np.arange(lanes) - 7)
    _whole_numbers(address(a), address(b), address(target), count)
    np.testing.assert_array_equal(target[0], a.round())
    np.testing.assert_array_equal(target[3].view(np.uint32), b + (a < 0))


@njit
def _grow(count):
    memory = v.resize(0, 8)
    v.poke(memory, 1)
    for i in range(1, count):
        memory = v.resize(memory, 8 * (i + 1))
        v.poke(memory + 8 * i, 2 * v.peek(memory + 8 * (i - 1), 1))
    last = v.peek(memory + 8 * (count - 1), 1)
    v.release(memory)
    return last


def test_memory_of_its_own_keeps_what_it_held():
    assert _grow(40) == 1 << 39


def test_lanes_fill_a_register():
    assert v.REGISTER_BYTES in (16, 32, 64)
    assert v.lanes(np.dtype(np.float32)) == 2 * v.lanes(np.dtype(np.float64))
