"""Grid search and kd-tree against brute force: the same table bit for bit, and its transpose."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from cases import Case, each, lattice, named, uniform, walls, with_outlier
from hypothesis import given
from hypothesis import strategies as st

from pointwise.cloud.kdtree import kdtree_search
from pointwise.convolution.cells import index_bits
from pointwise.engine.cpu.search import neighbours as search_module
from pointwise.engine.cpu.search.neighbours import grid_search

SEARCHES = {"grid": grid_search, "kdtree": kdtree_search}


def table_of(case: Case, search, transposed: bool):
    cloud, asked = case.clouds()
    where = (cloud.points, cloud.offsets, asked.points, asked.offsets)
    return search(*where, case.cell_size, case.kernel_size, case.dilation, transposed)


def assert_table(case: Case, found, transposed: bool) -> None:
    row_start, pairs, symmetric = found
    rows, columns, table = case.rows, len(case.points), case.table
    if transposed:
        rows, columns, table = columns, rows, oracle.turned(table)
    oracle.assert_same_table(row_start.numpy(), pairs.numpy(), table, rows, columns)
    mirrored = oracle.turned(table).copy()
    mirrored[:, 1] = case.cells - 1 - mirrored[:, 1]
    same = case.queries is None and set(map(tuple, mirrored)) == set(map(tuple, table))
    assert bool(symmetric) == same


@pytest.mark.parametrize("transposed", [False, True], ids=["table", "transposed"])
@pytest.mark.parametrize("search", SEARCHES)
@each()
def test_search_is_the_oracle_bit_for_bit(case, search, transposed):
    assert_table(case, table_of(case, SEARCHES[search], transposed), transposed)


@pytest.mark.parametrize("base", [2.0**40, 2.0**50, -(2.0**51)])
@pytest.mark.parametrize("cell_size", [0.5, 0.7, 1.3])
@pytest.mark.parametrize("search", SEARCHES)
def test_far_from_zero_no_neighbour_is_lost_to_rounding(search, cell_size, base):
    # There, coordinates are a quarter apart or more: much more than the search's margins.
    case = Case("far", lattice(5, 0.5) + base, cell_size=cell_size, dilation=2)
    assert_table(case, table_of(case, SEARCHES[search], False), False)


def test_half_open_cells():
    # Cell size 0.5: the query's own cell is [-0.25, 0.25), the next one begins at 0.25.
    x = torch.tensor([-0.75, -0.25, 0.0, 0.25, 0.75], dtype=torch.float64)
    points = torch.stack([x, torch.zeros(5), torch.zeros(5)], dim=1)
    here = torch.zeros(1, 3, dtype=torch.float64)
    offsets, one = torch.tensor([0, 5]), torch.tensor([0, 1])
    _, pairs, _ = grid_search(points, offsets, here, one, 0.5, 3, 1)
    cell, point = (pairs >> 3) - 12, pairs & 7  # 12: the row of cells through the middle
    assert dict(zip(point.tolist(), cell.tolist(), strict=True)) == {0: 0, 1: 1, 2: 1, 3: 2}


def test_the_far_side_of_a_dilated_kernel_is_in_one_way_only():
    # Reaches [-1.25, 1.25) in cells of 0.5, one apart; the gaps are not neighbours.
    x = torch.tensor([-1.25, -0.75, -0.25, 0.25, 0.75, 1.25], dtype=torch.float64)
    points = torch.stack([x, torch.zeros(6), torch.zeros(6)], dim=1)
    here = torch.zeros(1, 3, dtype=torch.float64)
    _, pairs, _ = grid_search(points, torch.tensor([0, 6]), here, torch.tensor([0, 1]), 0.5, 3, 2)
    cell, point = (pairs >> 3) - 12, pairs & 7
    assert dict(zip(point.tolist(), cell.tolist(), strict=True)) == {0: 0, 2: 1, 4: 2}


coordinates = st.one_of(
    st.integers(-12, 12).map(lambda n: n * 0.125),  # on borders
    st.floats(-2, 2, allow_nan=False, width=32),
)
positions = st.lists(st.tuples(coordinates, coordinates, coordinates), max_size=40).map(
    lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 3)
)
kernels = st.tuples(
    st.sampled_from([0.125, 0.25, 0.3, 0.5, 1.0, 7.0]),
    st.sampled_from([1, 3, 5, 7]),
    st.integers(1, 4),
)


@given(positions, st.none() | positions, kernels, st.sampled_from([0.0, 500_000.0]), st.booleans())
def test_any_points_any_kernel(points, queries, kernel, shift, transposed):
    moved = None if queries is None else queries + shift
    cell_size, kernel_size, dilation = kernel
    case = Case("drawn", points + shift, cell_size=cell_size, kernel_size=kernel_size,
                dilation=dilation, queries=moved)  # fmt: skip
    for search in SEARCHES.values():
        assert_table(case, table_of(case, search, transposed), transposed)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_any_batch(sizes, data):
    asked = data.draw(st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)))
    offsets, query_offsets = np.cumsum([0, *sizes]), np.cumsum([0, *asked])
    case = Case("drawn", uniform(offsets[-1]), cell_size=0.3, offsets=tuple(offsets.tolist()),
                queries=uniform(query_offsets[-1], seed=5),
                query_offsets=tuple(query_offsets.tolist()))  # fmt: skip
    for transposed in (False, True):
        assert_table(case, table_of(case, grid_search, transposed), transposed)


def test_memory_is_four_bytes_a_pair_and_eight_with_the_transposed_table():
    neighborhood = named("kernel 5, dilation 1, mean")[0].neighborhood()
    pairs = len(neighborhood.pairs)
    assert pairs > 500
    assert neighborhood.pairs.untyped_storage().nbytes() == 4 * pairs
    assert neighborhood.transposed[1].untyped_storage().nbytes() == 4 * pairs


def test_any_number_of_threads_gives_the_same_table(threads):
    case = Case("threads", walls(3000), cell_size=0.05)
    tables = []
    for count in (1, 2, 3):
        threads(count)
        tables.append([*table_of(case, grid_search, False), *table_of(case, grid_search, True)])
    for table in tables[1:]:
        assert all(torch.equal(a, b) for a, b in zip(tables[0], table, strict=True))


def test_small_tiles_give_the_same_table(monkeypatch):
    case = Case("tiles", walls(700), cell_size=0.1)
    whole = table_of(case, grid_search, False)
    monkeypatch.setattr(search_module, "QUERIES_PER_TILE", 3)
    assert all(torch.equal(a, b) for a, b in zip(whole, table_of(case, grid_search, False),
                                                 strict=True))  # fmt: skip


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("search", SEARCHES)
def test_the_first_point_that_is_not_finite_is_named(search, bad):
    points = torch.rand(50, 3)
    points[41, 0] = points[17, 2] = points[23, 1] = bad
    offsets = torch.tensor([0, 20, 50])
    with pytest.raises(ValueError, match=rf"points\[17\] is \[.*{bad}.*must be finite: drop"):
        SEARCHES[search](points, offsets, points, offsets, 0.1, 3, 1)


def test_both_sides_need_the_same_number_of_clouds():
    points = torch.rand(4, 3)
    with pytest.raises(ValueError, match="1 clouds of points but 2 of queries"):
        grid_search(points, torch.tensor([0, 4]), points, torch.tensor([0, 2, 4]), 0.1, 3, 1)


def test_the_kernel_on_addresses_checks_whoever_calls():
    points, offsets = torch.rand(4, 3), torch.tensor([0, 4])
    good = [points, offsets, points, offsets, 0.1, 3, 1]
    wrong = [
        (0, torch.rand(4, 2), r"points must be a tensor \[N, 3\]"),
        (2, torch.rand(4), r"queries must be a tensor \[N, 3\]"),
        (1, torch.tensor([0, 9]), "point_offsets must start at 0"),
        (3, torch.tensor([0, -3, 4]), "query_offsets must start at 0"),
        (4, 0.0, "cell_size must be a positive length"),
        (5, 2, "kernel_size must be an odd"),
        (6, 0, "dilation must be a whole number"),
    ]
    for place, value, message in wrong:
        call = [*good[:place], value, *good[place + 1 :]]
        with pytest.raises(ValueError, match=message):
            grid_search(*call)


def test_a_real_scan_as_the_kd_tree_sees_it(shared_data):
    path = shared_data / "las/town_6_classes.las"
    laspy = pytest.importorskip("laspy")
    if not path.exists():
        pytest.skip("the real scan is not here: las/town_6_classes.las")
    las = laspy.read(path)
    points = torch.from_numpy(np.stack([las.x, las.y, las.z], axis=1)[::4].copy())
    offsets = torch.tensor([0, len(points)])
    for transposed in (False, True):
        where = (points, offsets, points[::10].contiguous(), torch.tensor([0, len(points[::10])]))
        found = grid_search(*where, 1.0, 3, 1, transposed)
        expected = kdtree_search(*where, 1.0, 3, 1, transposed)
        assert len(found[1]) > len(points[::10])
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kernel", [(3, 1), (3, 2), (3, 4), (5, 3)], ids=str)
@pytest.mark.parametrize("shift", [0.0, 1e7])
@pytest.mark.parametrize("long", [False, True])
def test_points_on_a_millimetre_grid(kernel, shift, long):
    # Every twentieth lies on a border of a cell, which float32 cannot see.
    generator = np.random.default_rng(0)
    extent = [40.0, 0.3, 0.3] if long else [1.0, 1.0, 0.4]  # and rows of many points, or of few
    points = (generator.random((3000, 3)) * extent).round(3) + shift
    where = (torch.from_numpy(points), torch.tensor([0, 1000, 3000]))
    for transposed in (False, True):
        expected = kdtree_search(*where, *where, 0.1, *kernel, transposed)
        found = grid_search(*where, *where, 0.1, *kernel, transposed)
        assert len(found[1]) > 5000
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("count", [1, 15, 16, 17, 100, 511, 512, 513, 700])
def test_so_many_neighbours_in_ascending_order(count):
    points, offsets = torch.from_numpy(uniform(count)), torch.tensor([0, count])
    row_start, pairs, _ = grid_search(points, offsets, points, offsets, 3.0, 1, 1)
    assert torch.equal(row_start, torch.arange(count + 1) * count)
    assert torch.equal(pairs.view(count, count), torch.arange(count).expand(count, count).int())


@pytest.mark.rare
def test_five_million_points():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(5_000_000, 3, generator=generator) * torch.tensor([100.0, 100.0, 10.0])
    points[:, 2].floor_()  # ten storeys: as many points per area as a scan
    offsets = torch.tensor([0, len(points)])
    row_start, pairs, _ = grid_search(points, offsets, points, offsets, 0.1, 3, 1)
    bits = index_bits(len(points))
    sample = torch.arange(0, len(points), 50_000)
    rows = [pairs[row_start[q] : row_start[q + 1]] for q in sample]
    where = (points, offsets, points[sample].contiguous(), torch.tensor([0, len(sample)]))
    expected_start, expected, _ = kdtree_search(*where, 0.1, 3, 1)
    assert torch.equal(torch.cat(rows), expected)
    assert len(pairs) * 4 == pairs.untyped_storage().nbytes()
    assert int(pairs.long().bitwise_and((1 << bits) - 1).max()) < len(points)
    assert int(expected_start[-1]) > 2 * len(sample)


# --- arguments of any size ------------------------------------------------------------------------

KERNELS = [  # cell size, kernel size, dilation
    (0.1, 3, 100_000),
    (0.1, 3, 2**31 - 1),
    (1e-6, 5, 250_000),  # a billion rows lie between the ends of the kernel
    (1e-150, 3, 2**31 - 1),
    (1e-9, 3, 1),
    (1e140, 3, 7),
    (0.01, 101, 3),
]


@pytest.mark.parametrize(("cell_size", "kernel_size", "dilation"), KERNELS)
@pytest.mark.parametrize("scale", [1.0, 1e5, 1e149])
def test_memory_and_time_follow_the_points(cell_size, kernel_size, dilation, scale, capfd):
    points = np.concatenate([uniform(40) * scale, lattice(3, 0.1), uniform(5)])
    case = Case("any", points, cell_size=cell_size, kernel_size=kernel_size, dilation=dilation)
    expected = table_of(case, kdtree_search, False)
    found = table_of(case, grid_search, False)
    for wanted, given_ in zip(expected, found, strict=True):
        assert torch.equal(wanted, given_)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e300])
@pytest.mark.parametrize("search", SEARCHES)
def test_a_cell_that_float64_cannot_compute_with(search, size):
    case = Case("any", uniform(4), cell_size=size)
    caller = f"{search.replace('grid', 'cell')}_search"
    refusals = "a cell of edge|cell_size must be a positive length"
    with pytest.raises(ValueError, match=rf"{caller}: ({refusals})"):
        table_of(case, SEARCHES[search], False)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_point_that_float64_cannot_compute_with(search):
    case = Case("any", with_outlier(uniform(4), 0, -1e300, 0))
    with pytest.raises(ValueError, match=r"points\[4\] is .*-1e\+300.*must lie within ±1e\+150"):
        table_of(case, SEARCHES[search], False)


def test_what_tiles_own_is_freed_where_a_search_fails(monkeypatch):
    freed = []
    monkeypatch.setattr(search_module, "free", lambda owned: freed.extend(owned[owned > 0]))
    monkeypatch.setattr(search_module, "_collect", None)  # as where a table does not fit in memory
    with pytest.raises(AttributeError):
        table_of(Case("any", uniform(200), cell_size=5.0), grid_search, False)
    assert len(freed) == 1
