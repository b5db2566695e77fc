"""Search and voxels on a GPU, or by Triton's interpreter: the same bits as the CPU's."""

from __future__ import annotations

import pickle

import as_compiled
import numpy as np
import pytest
import torch
from cases import Case, each, lattice, named, uniform, walls, with_outlier
from hypothesis import given, settings
from hypothesis import strategies as st

from pointwise.cloud.kdtree import kdtree_search
from pointwise.cloud.point_cloud import PointCloud
from pointwise.convolution import cells as definition
from pointwise.convolution.cells import index_bits
from pointwise.engine import found
from pointwise.engine.cpu.search import tables
from pointwise.engine.cpu.search.neighbours import grid_search as cpu_search
from pointwise.engine.cpu.search.voxels import voxel_grid as cpu_voxels
from pointwise.engine.gpu import is_interpreted
from pointwise.engine.gpu.search import grid, neighbours, order
from pointwise.engine.gpu.search.grid import corners, make_frame
from pointwise.engine.gpu.search.neighbours import grid_search
from pointwise.engine.gpu.search.voxels import voxel_grid
from pointwise.networks import CellUNet
from pointwise.operators import cells as operators

# The interpreter takes a second for each search of so few points.
BOTH_WAYS = [
    *named("1 points", "queries of nothing", "batch, up, sum", "UTM, lattice"),
    Case("lattice, dilated by 2", lattice(3, 0.25)[:24], cell_size=0.5, dilation=2),
    Case("lattice, dilated by 3", lattice(3, 0.5)[:24], cell_size=1.0, kernel_size=5, dilation=3),
    Case("other queries", walls(20), queries=2 * walls(15, seed=1) - 0.5),
]
ONE_WAY = [
    Case("dilated by 2", walls(40), cell_size=0.2, dilation=2),
    Case("no clouds", np.zeros((0, 3)), offsets=(0,)),
    Case("far away", lattice(4, 0.25) + 2.0**50, cell_size=0.7, dilation=2),
    *named(
        "33 points, search",
        "no points",
        "no queries",
        "empty clouds in a batch",
        "a batch where one side is empty",
        "queries outside",
        "all equal",
        "lattice, one cell apart",
        "lattice, float32",
        "lattice of tenths",
        "UTM in float32",
        "kilometres of centimetres",
        "outlier along y",
        "outlier along all axes",
    ),
]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _much_at_once(monkeypatch):
    """The interpreter takes as long for few numbers as for many."""
    if is_interpreted():
        monkeypatch.setattr(neighbours, "_QUERIES", 128)
        monkeypatch.setattr(neighbours, "_NEAR", 32)


def arguments(case: Case, device: str = DEVICE):
    cloud, asked = case.clouds()
    points, offsets = cloud.points.to(device), cloud.offsets.to(device)
    queries = (points, offsets)
    if asked is not cloud:
        queries = asked.points.to(device), asked.offsets.to(device)
    return points, offsets, *queries, case.cell_size, case.kernel_size, case.dilation


def assert_equal(one, other) -> None:
    for mine, theirs in zip(one, other, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine.cpu(), theirs.cpu())


def assert_as_on_the_cpu(case: Case, transposed: bool) -> None:
    found_here = grid_search(*arguments(case), transposed)
    assert_equal(found_here, cpu_search(*arguments(case, "cpu"), transposed))


@pytest.mark.parametrize("transposed", [False, True], ids=["table", "transposed"])
@each(BOTH_WAYS)
def test_tables_are_those_of_the_cpu_both_ways(case, transposed):
    assert_as_on_the_cpu(case, transposed)


@each(ONE_WAY)
def test_tables_are_those_of_the_cpu(case):
    assert_as_on_the_cpu(case, False)


coordinates = st.one_of(
    st.integers(-12, 12).map(lambda n: n * 0.125),  # on borders
    st.floats(-2, 2, allow_nan=False, width=32),
)
positions = st.lists(st.tuples(coordinates, coordinates, coordinates), max_size=12).map(
    lambda rows: np.array(rows, dtype=np.float64).reshape(-1, 3)
)
kernels = st.tuples(
    st.sampled_from([0.125, 0.25, 0.3, 0.5, 1.0, 7.0]),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 4),
)


@settings(max_examples=8)
@given(positions, st.none() | positions, kernels, st.sampled_from([0.0, 500_000.0]), st.booleans())
def test_any_points_any_kernel(points, queries, kernel, shift, transposed):
    moved = None if queries is None else queries + shift
    cell_size, kernel_size, dilation = kernel
    case = Case("drawn", points + shift, cell_size=cell_size, kernel_size=kernel_size,
                dilation=dilation, queries=moved)  # fmt: skip
    assert_as_on_the_cpu(case, transposed)


@settings(max_examples=4)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_any_batch(sizes, data):
    asked = data.draw(st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)))
    offsets, query_offsets = np.cumsum([0, *sizes]), np.cumsum([0, *asked])
    case = Case("drawn", uniform(offsets[-1]), cell_size=0.3, offsets=tuple(offsets.tolist()),
                queries=uniform(query_offsets[-1], seed=5),
                query_offsets=tuple(query_offsets.tolist()))  # fmt: skip
    assert_as_on_the_cpu(case, False)


@pytest.mark.parametrize(
    ("cell_size", "kernel_size", "dilation"),
    [(0.1, 3, 2**31 - 1), (1e-6, 5, 250_000), (1e-150, 3, 1), (1e140, 3, 7), (0.01, 101, 3)],
)
def test_memory_and_time_follow_the_points(cell_size, kernel_size, dilation):
    scale = 1e149 if kernel_size == 3 else 1.0
    points = np.concatenate([uniform(12) * scale, lattice(2, 0.1), uniform(3)])
    case = Case("any", points, cell_size=cell_size, kernel_size=kernel_size, dilation=dilation)
    expected = kdtree_search(*arguments(case, "cpu"))
    assert_equal(grid_search(*arguments(case)), expected)


def test_a_real_scan(shared_data):
    laspy = pytest.importorskip("laspy")
    path = shared_data / "las/town_6_classes.las"
    if not path.exists():
        pytest.skip("the real scan is not here: las/town_6_classes.las")
    las = laspy.read(path)
    near = np.stack([las.x, las.y, las.z], axis=1)
    near = near[np.abs(near - near[len(near) // 2]).max(axis=1) < 6][:150]
    assert len(near) > 100
    assert_as_on_the_cpu(Case("scan", near.copy(), cell_size=1.0, queries=near[::5].copy()), False)


# --- rows in order --------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [4, 64])
def test_rows_of_any_length_are_sorted(monkeypatch, run):
    monkeypatch.setattr(order, "RUN", run)
    generator = np.random.default_rng(run)
    lengths = [0, 1, 2, 3, 4, 5, 9, 17, 0, 33] if run == 4 else [0, 33, 64, 65, 130]
    rows = [generator.permutation(2**32 - 1 - 7919 * np.arange(n)) for n in lengths]
    pairs = torch.from_numpy(np.concatenate(rows).astype(np.uint32).view(np.int32)).to(DEVICE)
    row_start = torch.tensor(np.cumsum([0, *lengths])).to(DEVICE)
    order.order_rows(row_start, pairs, max(lengths))
    expected = np.concatenate([np.sort(row) for row in rows]).astype(np.uint32)
    np.testing.assert_array_equal(pairs.cpu().numpy().view(np.uint32), expected)


def test_a_row_longer_than_two_runs():
    crowd = np.random.default_rng(0).permutation(np.arange(150))[:, None] * [1e-3, 0.0, 0.0]
    assert_as_on_the_cpu(Case("crowd", crowd, cell_size=1.0, queries=crowd[:3]), False)


# --- where the grid lies --------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [0.0, 1.0, 1e3, 1e12, 1e149])
def test_the_frame_is_coarsened_until_indices_fit_a_key(reach):
    points = torch.tensor([[0.0, 0.0, 0.0], [reach, 2 * reach, 3.0]], dtype=torch.float64)
    box = corners(points.to(DEVICE), torch.tensor([0, 1, 1, 2]).to(DEVICE))
    assert box.low[1].tolist() == [float("inf")] * 3  # nobody in the cloud in the middle
    low, high = points.amin(0, True).to(DEVICE), points.amax(0, True).to(DEVICE)
    frame = make_frame(low, high, 0.15, 0.05)
    bits = frame.bits.tolist()
    assert sum(bits) + 1 <= 62
    assert max(bits) <= 31
    assert bool(frame.coarsened) == (reach > 1e6)
    extent = (high - low)[0] / frame.unit
    assert all(n < 2 ** (b - 1) for n, b in zip(extent.tolist(), bits, strict=True))


# --- what is refused ------------------------------------------------------------------------------


def refusal(search, *call) -> str:
    with pytest.raises(ValueError, match=":") as raised:
        search(*call)
    return str(raised.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_are_refused_in_the_words_of_the_cpu(bad, dtype):
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    points[41, 0] = points[17, 2] = points[23, 1] = torch.tensor(bad).to(dtype)
    good, offsets = torch.rand(4, 3).to(dtype), torch.tensor([0, 20, 50])
    small = torch.tensor([0, 1, 4])
    for where in ((points, offsets, points, offsets), (good, small, points, offsets)):
        expected = refusal(cpu_search, *where, 0.1, 3, 1)
        there = [each.to(DEVICE) for each in where]
        assert "points[17]" in expected
        assert refusal(grid_search, *there, 0.1, 3, 1) == expected
    expected = refusal(cpu_voxels, points, offsets, 0.1)
    assert refusal(voxel_grid, points.to(DEVICE), offsets.to(DEVICE), 0.1) == expected


WRONG = [
    (0, torch.rand(4, 2)),
    (2, torch.rand(4)),
    (1, torch.tensor([0, 9])),
    (1, torch.tensor([1, 4])),
    (1, torch.tensor([0])),
    (3, torch.tensor([0, -3, 4])),
    (3, torch.tensor([0, 2, 4])),
    (3, torch.tensor([0, 5])),
    (1, torch.tensor([0, 4], dtype=torch.int32)),
    (4, 0.0),
    (4, 1e-300),
    (5, 2),
    (6, 0),
]


@pytest.mark.parametrize(("place", "value"), WRONG)
def test_arguments_are_refused_in_the_words_of_the_cpu(place, value):
    points, offsets = torch.rand(4, 3), torch.tensor([0, 4])
    call = [points, offsets, points, offsets, 0.1, 3, 1]
    call[place] = value
    expected = refusal(cpu_search, *call)
    there = [each.to(DEVICE) if isinstance(each, torch.Tensor) else each for each in call]
    assert refusal(grid_search, *there) == expected.replace("on cpu", f"on {there[0].device}")


@pytest.mark.parametrize("offsets", [[0, 9], [1, 4], [0, 3, 2, 4], [0]])
def test_offsets_of_voxels_are_refused_in_the_words_of_the_cpu(offsets):
    points, offsets = torch.rand(4, 3), torch.tensor(offsets)
    expected = refusal(cpu_voxels, points, offsets, 0.1)
    assert refusal(voxel_grid, points.to(DEVICE), offsets.to(DEVICE), 0.1) == expected


# --- voxels ---------------------------------------------------------------------------------------

VOXELS = [
    Case("none", np.zeros((0, 3))),
    Case("no clouds", np.zeros((0, 3)), offsets=(0,)),
    Case("walls, float32", walls(90), cell_size=0.1, coordinates=torch.float32),
    Case("one voxel", walls(50), cell_size=7.0),
    Case("on borders", lattice(4, 0.25), cell_size=0.5),
    Case("batch", uniform(60), cell_size=0.5, offsets=(0, 0, 1, 30, 30, 60)),
    *named("UTM", "kilometres of centimetres"),
    Case("outlier at 1e10", with_outlier(walls(40), 1e10, 0.5, 0.5), cell_size=0.05),
    Case("outliers of a batch", with_outlier(walls(40), 1e12, 1e12, 1e12), cell_size=0.3,
         offsets=(0, 0, 30, 41)),
]  # fmt: skip


@each(VOXELS)
def test_voxels_are_those_of_the_cpu(case):
    points, offsets, *_ = arguments(case)
    expected = cpu_voxels(points.cpu(), offsets.cpu(), case.cell_size)
    assert_equal(voxel_grid(points, offsets, case.cell_size), expected)


@settings(max_examples=8)
@given(
    st.lists(st.tuples(*[st.integers(-20, 20).map(lambda n: n / 8)] * 3), max_size=30),
    st.sampled_from([0.125, 0.3, 1.0, 40.0]),
)
def test_voxels_of_any_points(rows, size):
    points = torch.tensor(np.array(rows).reshape(-1, 3))
    offsets = torch.tensor([0, len(points)])
    expected = cpu_voxels(points, offsets, size)
    assert_equal(voxel_grid(points.to(DEVICE), offsets.to(DEVICE), size), expected)


# --- as operators ---------------------------------------------------------------------------------


def test_the_operators_are_what_pytorch_expects(device):
    call = arguments(Case("few", uniform(6), cell_size=0.3, queries=uniform(5, seed=1)))
    which = ("test_schema", "test_faketensor")
    ops = torch.ops.pointwise
    torch.library.opcheck(ops.cell_search.default, (*call, False), test_utils=which)
    torch.library.opcheck(ops.voxel_grid.default, (*call[:2], 0.3), test_utils=which)


def test_a_cloud_searches_there(device, monkeypatch):
    asked = []
    search = neighbours.grid_search
    monkeypatch.setattr(neighbours, "grid_search", lambda *a: asked.append(a) or search(*a))
    cloud = PointCloud(torch.from_numpy(walls(15)).to(device))
    coarse, parent = cloud.voxels(0.3)
    neighborhood = cloud.neighborhood(0.2, queries=coarse)
    assert len(neighborhood.transposed[0]) == 16
    assert len(asked) == 2
    assert parent.max() == len(coarse) - 1


def test_a_network_finds_the_same_neighbours_there(request):
    torch.manual_seed(0)
    network = CellUNet(2, 3, cell_size=0.3, width=4, depths=(1, 1)).eval()
    points, features, offsets = torch.rand(30, 3), torch.rand(30, 2), torch.tensor([0, 13, 30])

    def step(device):
        module = network.to(device)
        logits = module(points.to(device), features.to(device), offsets.to(device))
        gradients = torch.autograd.grad(logits.square().sum(), list(module.parameters()))
        return [each.cpu() for each in (logits, *gradients)]

    expected = step("cpu")
    found_there = step(request.getfixturevalue("device"))
    for here, there in zip(expected, found_there, strict=True):
        # Convolutions round otherwise there; another neighbour would change far more.
        torch.testing.assert_close(there, here, rtol=0, atol=1e-4 * float(here.abs().max()))


class Waits(torch.overrides.TorchFunctionMode):
    """Counts what a GPU would be waited for: values of tensors that Python asks for."""

    ASKING = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy",
              "nonzero", "unique", "masked_select", "bincount", "equal")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if getattr(function, "__name__", "") in self.ASKING:
            self.names.append(function.__name__)
        return function(*arguments, **keywords or {})


SEARCHES = [
    pytest.param(lambda call: grid_search(*call), id="neighbours"),
    pytest.param(lambda call: voxel_grid(*call[:2], 0.3), id="voxels"),
]


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_waits_once(search):
    call = arguments(Case("few", uniform(10), cell_size=0.3, offsets=(0, 4, 10)))
    with Waits() as waits:
        search(call)
    assert waits.names == ["tolist"]


def test_a_grid_is_kept_while_its_points_are_the_same(monkeypatch):
    built = []
    build = grid.build
    monkeypatch.setattr(grid, "build", lambda *a: built.append(len(a[0])) or build(*a))
    points, offsets = torch.from_numpy(uniform(3)).to(DEVICE), torch.tensor([0, 3]).to(DEVICE)

    def search(points, dilation):
        here, at = points.cpu(), offsets.cpu()
        expected = cpu_search(here, at, here, at, 0.3, 3, dilation)
        assert_equal(grid_search(points, offsets, points, offsets, 0.3, 3, dilation), expected)

    search(points, 1)
    search(points, 2)
    assert built == [3]
    points += torch.arange(3, device=DEVICE)[:, None] / 10
    search(points, 2)
    assert built == [3, 3]
    search(points.clone(), 2)
    assert built == [3, 3, 3]
    assert grid._last == ()  # those points are gone
    with torch.inference_mode():
        unknown = points.clone()
        search(unknown, 1)
        search(unknown, 1)
    assert built == [3] * 5


@pytest.mark.gpu
@pytest.mark.parametrize("search", SEARCHES)
def test_on_a_device_a_search_waits_once(search):
    call = arguments(Case("walls", walls(5000), cell_size=0.05))
    search(call)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchronizing") as said:
            search(call)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(said) == 1


# --- tables that are known ------------------------------------------------------------------------


def test_a_table_that_was_found_is_known_until_it_is_written_to():
    (case,) = named("UTM")
    row_start, pairs, symmetric = grid_search(*arguments(case))
    assert found.is_sound(row_start, pairs, len(case.points), 27)
    assert found.symmetry(row_start, pairs) is bool(symmetric) is True
    assert not found.is_sound(row_start, pairs, len(case.points) - 1, 27)
    assert not found.is_sound(row_start, pairs, len(case.points), 125)
    assert not found.is_sound(row_start, pairs.clone(), len(case.points), 27)
    assert not found.is_sound(row_start.clone(), pairs, len(case.points), 27)
    pairs += 0
    assert not found.is_sound(row_start, pairs, len(case.points), 27)
    assert found.symmetry(row_start, pairs) is None


def test_tables_pass_through_operators_as_the_tensors_that_are_known(device):
    where = arguments(Case("few", uniform(8), cell_size=0.3))
    row_start, pairs, _ = torch.ops.pointwise.cell_search(*where, False)
    assert found.is_sound(row_start, pairs, 8, 27)


def test_a_table_that_the_cpu_has_found_for_a_device_is_known_too():
    (case,) = named("batch, down")
    call = arguments(case)
    for transposed, columns in ((False, len(case.points)), (True, len(case.queries))):
        row_start, pairs, symmetric = operators._search_anywhere(*call, transposed)
        assert row_start.device == call[0].device
        assert found.is_sound(row_start, pairs, columns, 27)
        assert found.symmetry(row_start, pairs) is bool(symmetric)


def test_tables_are_checked_on_a_device_as_on_the_cpu():
    (case,) = named("UTM, lattice")
    row_start, pairs, _ = cpu_search(*arguments(case, "cpu"))
    bits, cells = index_bits(len(case.points)), case.cells
    tables_of = {
        "good": (row_start, pairs),
        "none": (torch.zeros(1, dtype=torch.int64), pairs[:0]),
        "no pairs": (torch.zeros_like(row_start), pairs[:0]),
        "one pair": (torch.tensor([0, 0, 1]), pairs[:1]),
        "too short": (row_start, pairs[:-1]),
        "begins later": (row_start + 1, pairs),
        "falls": (row_start.flip(0), pairs),
        "backwards": (row_start, pairs.flip(0)),
        "another cell": (row_start, pairs.clone().index_fill_(0, torch.tensor([5]), -1)),
        "cells in disorder": (torch.tensor([0, len(pairs)]), pairs),
    }
    for name, table in tables_of.items():
        expected = tables.is_sound(*table, bits, len(case.points), cells)
        assert bool(definition.is_sound(*table, bits, len(case.points), cells)) == expected, name
    good = tables_of["good"]
    assert not definition.is_sound(*good, bits, len(case.points) - 1, cells)
    assert not definition.is_sound(*good, bits, len(case.points), cells - 1)


@pytest.mark.gpu
def test_a_neighbourhood_moves_to_a_device_and_back():
    (case,) = named("lattice, half a cell apart")
    here = case.neighborhood()
    assert here.transposed is not None
    there = here.to("cuda")
    assert there.pairs.is_cuda
    assert there.points is there.queries
    assert_equal(there.to("cpu").transposed, here.transposed)
    back = pickle.loads(pickle.dumps(there)).to("cpu")
    assert_equal((back.row_start, back.pairs), (here.row_start, here.pairs))


# --- compiled -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not is_interpreted(), reason="the kernels run on a device here")
def test_every_kernel_compiles_and_rounds_as_the_cpu_does(monkeypatch):
    monkeypatch.undo()  # as they are launched on a device
    few = Case("few", lattice(2, 0.5), cell_size=0.5)
    crowd = Case("crowd", np.zeros((70, 3)), queries=np.zeros((1, 3)), coordinates=torch.float32)
    with as_compiled.recorded() as launches:
        for case in (few, Case("dilated", few.points, dilation=2), crowd):
            for transposed in (False, True):
                grid_search(*arguments(case), transposed)
        voxel_grid(*arguments(few)[:2], 0.3)
    assert {launch.name for launch in launches} == {
        "corners_kernel", "keys_kernel", "walk_kernel", "runs_kernel", "merge_kernel",
        "sums_kernel",
    }  # fmt: skip
    for kernel in as_compiled.compile_all(launches):
        # A fused multiply-add rounds once where the definition rounds twice.
        assert "fma.rn.f64" not in kernel.ptx, kernel.launch
        assert kernel.stack <= 64, kernel.launch  # a few words, and no arrays
