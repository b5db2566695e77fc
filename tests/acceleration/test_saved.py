"""Accelerated models as modules: pickled, saved, read where their class is not known, threads."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from both_ways import assert_as_eager, assert_same
from random_networks import Gate, random_network, settle
from torch import nn

import pointwise
from pointwise.acceleration import guards, saved
from pointwise.acceleration.compiled import Compiled
from pointwise.acceleration.module import Accelerated
from pointwise.networks import MobileNetV2


class Network(nn.Module):
    """A class that only this file knows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
            nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 18, 1), Gate(18, nn.Sigmoid()),
            nn.Conv2d(18, 6, 3, groups=2), nn.GroupNorm(2, 6),
        )  # fmt: skip
        self.head = nn.Linear(6, 4)

    def forward(self, x, *, scale=None):
        y = self.body(x)
        return {"y": y, "scores": self.head(y.mean((2, 3))).log_softmax(1)}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return settle(Network())


@pytest.fixture(scope="module")
def faster(model):
    return pointwise.accelerate(model, torch.rand(1, 3, 16, 16))


def test_pickled_and_copied(model, faster):
    assert isinstance(faster, Accelerated)
    x = torch.rand(3, 3, 21, 14)
    for other in (pickle.loads(pickle.dumps(faster)), copy.deepcopy(faster)):
        assert_as_eager(model, other, x)
        assert_same(other(x), faster(x))
    once = pickle.dumps(faster)
    assert pickle.dumps(pickle.loads(once)) == once


def test_weights_come_back_exactly():
    """Also after kernels have packed them, and nothing else is left."""
    for seed in range(6):
        model, x = random_network(seed)
        fresh = pointwise.accelerate(model, x)
        if not isinstance(fresh, Accelerated):
            continue
        before = pickle.loads(pickle.dumps(fresh))._constants.tensors()
        fresh(x)
        after = fresh._constants.tensors()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_reading_needs_no_compiler(tmp_path):
    """Who only runs a saved model of kernels needs nothing of what compiles or exports one."""
    model = settle(MobileNetV2(classes=7, width=0.25))
    torch.save(pointwise.accelerate(model, torch.rand(1, 3, 32, 32)), tmp_path / "faster.pt")
    program = (
        "import sys, torch\n"
        f"faster = torch.load({str(tmp_path / 'faster.pt')!r}, weights_only=False)\n"
        "faster(torch.rand(3, 3, 32, 32))\n"
        "heavy = ('torch._dynamo', 'sympy', 'torch.onnx', 'pointwise.acceleration.trace',\n"
        "         'pointwise.operators')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_weights_are_kept_once(model):
    faster = pointwise.accelerate(model, torch.rand(1, 3, 16, 16))
    kept = [x for x in faster._constants._values.values() if isinstance(x, torch.Tensor)]
    assert sum(x.dim() == 4 for x in kept) == 0


@pytest.mark.slow
def test_read_in_another_process_without_the_class(tmp_path, model, faster):
    x = torch.rand(2, 3, 18, 18)
    torch.save(faster, tmp_path / "faster.pt")
    torch.save((x, faster(x)), tmp_path / "wanted.pt")
    code = (
        "import torch\n"
        "model = torch.load('faster.pt', weights_only=False)\n"
        "x, wanted = torch.load('wanted.pt')\n"
        "given = model(x)\n"
        "assert given.keys() == wanted.keys()\n"
        "assert all(torch.equal(given[name], wanted[name]) for name in wanted)\n"
        "print(type(model).__name__, not model.training)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "Accelerated True\n", done.stderr


def test_no_code_is_stored(faster):
    state = faster.__getstate__()
    assert set(state) == {"graph", "weights"}
    found = json.loads(state["graph"])
    with pytest.raises(ValueError, match=r"of version 99, and this is for version 3"):
        saved.graph_from_text(json.dumps({**found, "version": 99}))
    call = next(node for node in found["nodes"] if node["op"] == "call_function")
    for name in ("operator.__import__", "builtins.eval", "torch.load", "vocabulary"):
        nodes = [{**call, "args": [], "kwargs": {"dict": {}}, "target": name}]
        with pytest.raises(ValueError, match="no call is named"):
            saved.graph_from_text(json.dumps({**found, "nodes": nodes}))
    for value in ({"torch": "load"}, {"code": "1"}):
        nodes = [{**call, "args": [value], "kwargs": {"dict": {}}}]
        with pytest.raises(ValueError, match="an argument of no kind that is known"):
            saved.graph_from_text(json.dumps({**found, "nodes": nodes}))
    with pytest.raises(ValueError, match="a condition that is not on sizes"):
        guards.broken(["__import__('os').getpid() > 0"], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "ops.aten.save.default"}, "that only compute"),
        ({"target": "ops.aten.from_file.default"}, "that only compute"),
        ({"target": "ops.inductor.resize_storage_bytes_.default"}, "that only compute"),
        ({"target": "ops.aten.nothing.default"}, "no call is named"),
        ({"target": "operator.methodcaller"}, "no call is named"),
        ({"target": "operator.attrgetter"}, "no call is named"),
        ({"target": "math.factorial"}, "no call is named"),
        ({"op": "call_method"}, "has no nodes of kind 'call_method'"),
        ({"op": "get_attr"}, "has no nodes of kind 'get_attr'"),
        ({"name": "x=print(1)"}, "must be an identifier"),
        ({"kwargs": {"dict": {"x=print(1)": 1}}}, "must be an identifier"),
        ({"meta": {"order": [0, 0, 3]}}, "must name each once"),
        ({"meta": {"path": ["x"]}}, "a path must be text"),
    ],
)
def test_what_is_not_written_here_is_not_read(faster, change, message):
    found = json.loads(faster.__getstate__()["graph"])
    call = next(node for node in found["nodes"] if node["op"] == "call_function")
    nodes = [{**call, "args": [], "kwargs": {"dict": {}}, **change}]
    with pytest.raises(ValueError, match=message):
        saved.graph_from_text(json.dumps({**found, "nodes": nodes}))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "this:x", "name": "y"}]'},
         "an enum, which names a module to import"),
        ({"type": "collections.defaultdict",
          "context": {"default_factory_module": "os", "default_factory_name": "system",
                      "dict_context": []}}, "a defaultdict, which names a function to import"),
        ({"type": "builtins.tuple"}, "no structure of inputs"),
    ],
)  # fmt: skip
def test_structures_import_nothing(spec, message):
    with pytest.raises(ValueError, match=message):
        saved.spec_from_text(json.dumps([1, {"children_spec": [], **spec}]))


@pytest.mark.parametrize("text", ["9**9**9**9 > 1", "sizes[0][0]**9**9 > 1", "2**(9**9) > 1"])
def test_conditions_come_to_an_end(text):
    with pytest.raises(ValueError, match="a power that is no small number"):
        guards.broken([text], [torch.rand(2)])


def test_read_as_data_alone(tmp_path, faster):
    """With ``weights_only=True``, where torch.load runs no code of a file."""
    torch.save(faster, tmp_path / "faster.pt")
    read = torch.load(tmp_path / "faster.pt", weights_only=True)
    x = torch.rand(2, 3, 18, 18)
    assert_same(read(x), faster(x))


def test_what_has_no_name_cannot_be_saved():
    class Own(nn.Module):
        def forward(self, x):
            return torch.full_like(x, complex(1, 2), dtype=torch.complex64)

    faster = pointwise.accelerate(Own().eval(), torch.rand(2, 3))
    with pytest.raises(ValueError, match="cannot be saved as an argument of a call"):
        pickle.dumps(faster)


def test_several_threads(model, faster):
    inputs = [torch.rand(n % 3 + 1, 3, 16 + n % 2, 16) for n in range(24)]
    with torch.no_grad():
        wanted = [model(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(faster, inputs))
    for a, b in zip(given, wanted, strict=True):
        assert_same(a, b)


def test_what_is_wrong_is_said(model, faster):
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got function"):
        pointwise.accelerate(lambda x: x, torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"in training mode; call model\.eval\(\) first"):
        pointwise.accelerate(nn.Dropout(), torch.rand(1, 3, 8, 8))
    with pytest.raises(TypeError, match="too many positional arguments; it takes"):
        faster(torch.rand(1, 3, 16, 16), torch.rand(1))
    with pytest.raises(ValueError, match="must be arranged as in the example"):
        faster([torch.rand(1, 3, 16, 16)])
    with pytest.raises(ValueError, match=r"asks for .* Accelerate it again with such an example"):
        faster(torch.rand(1, 4, 16, 16))
    with pytest.warns(UserWarning, match="gives no gradients"):
        assert not faster(torch.rand(1, 3, 16, 16, requires_grad=True))["y"].requires_grad


def test_fixed_sizes_are_asked_for():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 5)

        def forward(self, x):
            return self.head(self.conv(x).flatten(1))

    model = Fixed().eval()
    faster = pointwise.accelerate(model, torch.rand(1, 3, 8, 8))
    assert_as_eager(model, faster, torch.rand(5, 3, 8, 8))
    with pytest.raises(ValueError, match=r"inputs of sizes \[\(1, 3, 9, 8\)\] do not fit"):
        faster(torch.rand(1, 3, 9, 8))


def test_what_cannot_be_traced_is_compiled():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x) if x.sum() > 0 else x

    model = Branches().eval()
    faster = pointwise.accelerate(model, torch.rand(1, 3, 8, 8))
    assert isinstance(faster, Compiled)
    assert "compiled in pieces, because torch.export said" in repr(faster)
    assert_as_eager(model, faster, torch.rand(1, 3, 8, 8))
    assert_as_eager(model, faster, -torch.rand(1, 3, 8, 8))
    assert faster.reports()


def test_reports_say_what_ran(faster):
    with torch.no_grad():
        faster(torch.rand(1, 3, 16, 16))
    (report,) = (r for r in faster.reports() if r.shapes == ((1, 3, 16, 16),))
    text = str(report)
    assert "8 calls as kernels, 1 plain" in text
    assert "1 × conv 3×3 + hardswish" in text
    assert "plain     1 × aten.log_softmax.int (PyTorch's own): (the model)" in text
    assert "norm terms" in text
    assert report.arena > 0
    assert {entry.path for entry in report.fused} >= {"body.2", "body.4", "head"}
    assert " ".join(text.split()) in " ".join(repr(faster).split())


def test_a_file_is_as_large_as_its_weights(tmp_path):
    """torch.save pickles as Python 2 could read it, where bytes would become text."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Flatten(), nn.Linear(64, 5000)).eval()
    faster = pointwise.accelerate(model, torch.rand(1, 3, 3, 3))
    torch.save(faster, tmp_path / "faster.pt")
    weights = 4 * sum(x.numel() for x in model.parameters())
    assert weights < (tmp_path / "faster.pt").stat().st_size < 1.02 * weights
    x = torch.rand(2, 3, 3, 3)
    for protocol in (2, 4):
        assert_same(pickle.loads(pickle.dumps(faster, protocol))(x), faster(x))


@pytest.mark.parametrize("weights", [torch.zeros(8), torch.zeros(8, dtype=torch.uint8).to("meta"),
                                     nn.Parameter(torch.zeros(8))])  # fmt: skip
def test_weights_are_bytes(faster, weights):
    with pytest.raises(ValueError, match="the weights of an accelerated model must be bytes, got"):
        copy.copy(faster).__setstate__({**faster.__getstate__(), "weights": weights})
