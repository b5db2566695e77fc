"""ONNX files as PyTorch: every operator as ONNX Runtime has it, whole networks, broken files."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from both_ways import assert_as_eager, exported
from random_networks import settle
from test_accelerated_networks import _imported
from torch import nn

from pointwise.acceleration.onnx_file import read
from pointwise.networks import EfficientNetB0, MobileNetV1, MobileNetV3, ResNet50

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TOLERANCE = 1e-5  # of the largest result: float32, added up in another order
RNG = np.random.default_rng(0)


def _floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _saved(path: Path, nodes, constants, shape, outputs=("y",), opset=18, dtype=np.float32):
    """A file with an input x of that shape (None: open) and these operators."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    dims = [f"d{i}" if size is None else size for i, size in enumerate(shape)]
    graph = onnx.helper.make_graph(
        nodes, "graph", [onnx.helper.make_tensor_value_info("x", kind, dims)],
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    versions = [onnx.helper.make_opsetid("", opset)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=versions, ir_version=8), path)
    return path


def _ran(path: Path, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def _assert_as_runtime(path: Path, x: np.ndarray) -> None:
    network, _ = read(path)
    with torch.no_grad():
        made = network(torch.from_numpy(x))
    wanted = _ran(path, x)
    made = made if isinstance(made, tuple) else (made,)
    assert len(made) == len(wanted)
    for one, other in zip(made, wanted, strict=True):
        assert one.shape == other.shape
        assert one.numpy().dtype == other.dtype
        np.testing.assert_allclose(
            one, other, rtol=TOLERANCE, atol=TOLERANCE * max(1, abs(other).max(initial=0))
        )


IMAGE = (2, 6, 9, 11)
WEIGHT = _floats(4, 6, 3, 3)
ROW = _floats(6)
POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}

# Name: operator, attributes, constants behind x, and what else (shape of x, version).
ONE_BY_ONE = {
    "conv": ("Conv", {"pads": [1, 1, 1, 1]}, [WEIGHT, _floats(4)], {}),
    "conv_uneven": ("Conv", {"pads": [0, 1, 2, 0], "strides": [2, 1]}, [WEIGHT], {}),
    "conv_groups": ("Conv", {"group": 3, "dilations": [2, 1]}, [_floats(6, 2, 3, 2)], {}),
    "conv_same": ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [_floats(4, 6, 3, 4)], {}),
    "conv_lower": ("Conv", {"auto_pad": "SAME_LOWER"}, [_floats(4, 6, 4, 3)], {}),
    "conv_valid": ("Conv", {"auto_pad": "VALID"}, [WEIGHT], {}),
    "conv_line": ("Conv", {"pads": [2, 2]}, [_floats(4, 6, 5)], {"shape": (2, 6, 12)}),
    "conv_volume": ("Conv", {}, [_floats(4, 3, 2, 2, 2)], {"shape": (1, 3, 4, 5, 6)}),
    "transposed": ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1],
                                     "output_padding": [1, 1]}, [_floats(6, 4, 3, 3)], {}),
    "transposed_groups": ("ConvTranspose", {"group": 2}, [_floats(6, 4, 2, 3), _floats(8)], {}),
    "batch_norm": ("BatchNormalization", {"epsilon": 1e-3}, [ROW, _floats(6), _floats(6),
                                                             abs(_floats(6))], {}),
    "gemm": ("Gemm", {"transB": 1}, [_floats(5, 7), _floats(5)], {"shape": (3, 7)}),
    "gemm_turned": ("Gemm", {"alpha": 0.5, "beta": 2.0, "transA": 1},
                    [_floats(3, 5), _floats(1, 5)], {"shape": (3, 7)}),
    "gemm_bare": ("Gemm", {}, [_floats(7, 5)], {"shape": (3, 7)}),
    "matmul": ("MatMul", {}, [_floats(11, 5)], {}),
    "matmul_batches": ("MatMul", {}, [_floats(2, 1, 11, 5)], {}),
    "clip": ("Clip", {}, [np.float32(0), np.float32(6)], {}),
    "clip_other": ("Clip", {}, [np.float32(-0.5), np.float32(0.25)], {}),
    "clip_below": ("Clip", {}, [np.float32(0)], {}),
    "clip_old": ("Clip", {"min": -1.0, "max": 0.5}, [], {"opset": 6}),
    "leaky": ("LeakyRelu", {"alpha": 0.2}, [], {}),
    "prelu": ("PRelu", {}, [_floats(6, 1, 1)], {}),
    "hard_sigmoid": ("HardSigmoid", {}, [], {}),
    "hard_sigmoid_torch": ("HardSigmoid", {"alpha": 1 / 6}, [], {}),
    "gelu": ("Gelu", {}, [], {"opset": 20}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}, [], {"opset": 20}),
    "softmax": ("Softmax", {"axis": 1}, [], {}),
    "softmax_old": ("Softmax", {"axis": 1}, [], {"opset": 11}),
    "lrn": ("LRN", {"size": 3, "alpha": 0.1}, [], {}),
    "add": ("Add", {}, [_floats(6, 1, 1)], {}),
    "sub": ("Sub", {}, [np.float32(3)], {}),
    "mul": ("Mul", {}, [_floats(1)], {}),
    "div": ("Div", {}, [np.float32(6)], {}),
    "div_whole": ("Div", {}, [_ints(-3)], {"dtype": np.int64, "shape": (4, 5)}),
    "pow": ("Pow", {}, [np.float32(2)], {}),
    "average": ("AveragePool", {**POOL, "pads": [1, 1, 1, 1]}, [], {}),
    "average_padding": ("AveragePool", {**POOL, "pads": [1, 1, 1, 1], "count_include_pad": 1},
                        [], {}),
    "average_uneven": ("AveragePool", {**POOL, "pads": [0, 1, 2, 1]}, [], {}),
    "average_same": ("AveragePool", {**POOL, "auto_pad": "SAME_UPPER"}, [], {}),
    "average_ceil": ("AveragePool", {**POOL, "ceil_mode": 1}, [], {"shape": (1, 2, 10, 8)}),
    "largest": ("MaxPool", {**POOL, "pads": [1, 1, 1, 1], "dilations": [2, 1]}, [], {}),
    "largest_same": ("MaxPool", {**POOL, "auto_pad": "SAME_LOWER"}, [], {}),
    "largest_ceil": ("MaxPool", {**POOL, "ceil_mode": 1}, [], {"shape": (1, 2, 10, 8)}),
    "largest_line": ("MaxPool", {"kernel_shape": [2]}, [], {"shape": (2, 6, 12)}),
    "mean": ("ReduceMean", {"keepdims": 0}, [_ints(-1, 2)], {}),
    "mean_all": ("ReduceMean", {}, [], {}),
    "mean_old": ("ReduceMean", {"axes": [2, 3]}, [], {"opset": 13}),
    "pad": ("Pad", {}, [_ints(0, 0, 1, 2, 0, 0, 0, 3), np.float32(1.5)], {}),
    "pad_reflect": ("Pad", {"mode": "reflect"}, [_ints(0, 0, 1, 2, 0, 0, 0, 3)], {}),
    "pad_edge_old": ("Pad", {"mode": "edge", "pads": [0, 0, 1, 2, 0, 0, 0, 3]}, [], {"opset": 10}),
    "resize": ("Resize", {"mode": "nearest"}, [_floats(0), np.float32([1, 1, 2, 3])], {}),
    "resize_floor": ("Resize", {"coordinate_transformation_mode": "asymmetric",
                                "nearest_mode": "floor"},
                     [_floats(0), np.float32([1, 1, 1.5, 3])], {}),
    "resize_linear": ("Resize", {"mode": "linear"},
                      [_floats(0), np.float32([]), _ints(2, 6, 13, 7)], {}),
    "resize_corners": ("Resize", {"mode": "linear",
                                  "coordinate_transformation_mode": "align_corners"},
                       [_floats(0), np.float32([]), _ints(2, 6, 20, 22)], {}),
    "slice": ("Slice", {}, [_ints(1, -3), _ints(2**62, -1), _ints(3, 2), _ints(2, 1)], {}),
    "slice_back": ("Slice", {}, [_ints(-1), _ints(-(2**62)), _ints(1), _ints(-2)], {}),
    "slice_old": ("Slice", {"starts": [1], "ends": [3], "axes": [1]}, [], {"opset": 9}),
    "reshape": ("Reshape", {}, [_ints(0, -1, 11)], {}),
    "flatten": ("Flatten", {}, [], {}),
    "flatten_late": ("Flatten", {"axis": 3}, [], {}),
    "flatten_all": ("Flatten", {"axis": 0}, [], {}),
    "transpose": ("Transpose", {"perm": [0, 2, 3, 1]}, [], {}),
    "transpose_all": ("Transpose", {}, [], {}),
    "squeeze": ("Squeeze", {}, [_ints(-1, 0)], {"shape": (1, 3, 1)}),
    "squeeze_old": ("Squeeze", {"axes": [0]}, [], {"shape": (1, 3, 1), "opset": 11}),
    "unsqueeze": ("Unsqueeze", {}, [_ints(-1, 0)], {"shape": (3, 4)}),
    "gather": ("Gather", {"axis": 1}, [np.array([[0, -1], [2, 2]])], {}),
    "gather_one": ("Gather", {"axis": -1}, [np.array(3)], {}),
    "expand": ("Expand", {}, [_ints(2, 1, 6)], {"shape": (3, 1)}),
    "cast": ("Cast", {"to": onnx.TensorProto.DOUBLE}, [], {}),
    "instance_norm": ("InstanceNormalization", {}, [ROW, _floats(6)], {}),
    "layer_norm": ("LayerNormalization", {}, [_floats(11), _floats(11)], {}),
    "layer_norm_two": ("LayerNormalization", {"axis": 2}, [_floats(9, 11)], {}),
    "dropout": ("Dropout", {}, [], {}),
    "identity": ("Identity", {}, [], {}),
} | {
    name: (name, {}, [], {})
    for name in ("Relu", "Sigmoid", "HardSwish", "Erf", "Tanh", "Exp", "Neg", "Abs", "Elu",
                 "Softplus", "Mish", "GlobalAveragePool", "GlobalMaxPool", "ReduceSum")
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_one_operator(name, tmp_path):
    kind, attributes, given, options = ONE_BY_ONE[name]
    shape, dtype = options.get("shape", IMAGE), options.get("dtype", np.float32)
    constants = {f"c{i}": np.asarray(value) for i, value in enumerate(given)}
    node = onnx.helper.make_node(kind, ["x", *constants], ["y"], **attributes)
    path = _saved(tmp_path / "one.onnx", [node], constants, shape,
                  opset=options.get("opset", 18), dtype=dtype)  # fmt: skip
    _assert_as_runtime(path, (9 * _floats(*shape)).astype(dtype) if dtype != np.float32
                       else _floats(*shape))  # fmt: skip


def _node(kind: str, inputs: str, outputs: str = "y", **attributes):
    return onnx.helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def test_several_results(tmp_path):
    nodes = [
        _node("Split", "x", "a b", axis=1, num_outputs=2),
        _node("Concat", "b a", "c", axis=1),
        _node("Split", "c parts", "d e", axis=1),
    ]
    path = _saved(tmp_path / "n.onnx", nodes, {"parts": _ints(1, 5)}, IMAGE, ("d", "e"))
    _assert_as_runtime(path, _floats(*IMAGE))


def test_constants_are_worked_out(tmp_path):
    nodes = [
        _node("Constant", "", "three", value_float=3.0),
        _node("Constant", "", "many", value_ints=[6, 1, 1]),
        _node("ConstantOfShape", "many", "ones",
              value=onnx.numpy_helper.from_array(np.float32([2]))),
        _node("Mul", "ones three", "factor"),
        _node("Sqrt", "factor", "root"),
        _node("Mul", "x root"),
    ]  # fmt: skip
    path = _saved(tmp_path / "n.onnx", nodes, {}, IMAGE)
    _assert_as_runtime(path, _floats(*IMAGE))
    network, _ = read(path)
    assert [node.op for node in network.graph.nodes] == ["placeholder", "get_attr",
                                                         "call_function", "output"]  # fmt: skip


def test_sizes_stay_open(tmp_path):
    """What exporters write for ``x.view(n, -1)`` and ``y.expand_as(x)``."""
    nodes = [
        _node("Shape", "x", "all"),
        _node("Gather", "all zero", "n"),
        _node("Unsqueeze", "n axis", "first"),
        _node("Concat", "first rest", "wanted", axis=0),
        _node("Reshape", "x wanted", "flat"),
        _node("Slice", "all one three", "inner"),
        _node("ReduceMean", "x dims", "mean"),
        _node("Shape", "all", "rank"),
        _node("ConstantOfShape", "rank", "ones",
              value=onnx.numpy_helper.from_array(_ints(1))),
        _node("Mul", "ones minus", "unknown"),
        _node("Equal", "all unknown", "is_unknown"),
        _node("Where", "is_unknown ones all", "shape"),
        _node("Expand", "mean shape", "wide"),
        _node("Add", "wide x", "y"),
    ]  # fmt: skip
    constants = {"zero": np.array(0), "axis": _ints(0), "rest": _ints(-1), "one": _ints(1),
                 "three": _ints(3), "dims": _ints(2, 3), "minus": _ints(-1)}  # fmt: skip
    path = _saved(tmp_path / "n.onnx", nodes, constants, (None, 6, None, None), ("flat", "y"))
    network, (takes,) = read(path)
    assert takes == ("x", (None, 6, None, None), torch.float32)
    for shape in (IMAGE, (1, 6, 4, 5)):
        _assert_as_runtime(path, _floats(*shape))
    x = torch.rand(*IMAGE)
    assert_as_eager(network, exported(network, x), x)


def test_padding_goes_into_the_convolution(tmp_path):
    nodes = [_node("Pad", "x edges", "p"), _node("Pad", "p none", "q"), _node("Conv", "q w")]
    constants = {"edges": _ints(0, 0, 1, 2, 0, 0, 0, 3), "none": _ints(*[0] * 8), "w": WEIGHT}
    path = _saved(tmp_path / "n.onnx", nodes, constants, (None, 6, None, None))
    _assert_as_runtime(path, _floats(*IMAGE))
    network, _ = read(path)
    x = torch.rand(*IMAGE)
    faster = exported(network, x)
    assert_as_eager(network, faster, x)
    assert [entry.what for entry in faster.reports()[0].entries] == ["conv 3×3"]


def test_layers_have_their_names_and_biases(tmp_path):
    nodes = [
        _node("Conv", "x stem.0.weight", "a"),
        _node("BatchNormalization", "a stem.1.weight b m v", "c"),
        _node("Transpose", "c", "d", perm=[0, 2, 3, 1]),
        onnx.helper.make_node("MatMul", ["d", "onnx::7"], ["e"], "/blocks.0/fc/MatMul"),
        _node("Add", "e bias", "f"),
        _node("Conv", "x stem.0.weight", "g"),
    ]
    row = _floats(4)
    constants = {"stem.0.weight": WEIGHT, "stem.1.weight": row, "b": row, "m": row, "v": abs(row),
                 "onnx::7": _floats(4, 5), "bias": _floats(5)}  # fmt: skip
    path = _saved(tmp_path / "n.onnx", nodes, constants, IMAGE, ("f", "g"))
    network, _ = read(path)
    modules = dict(network.named_modules())
    assert isinstance(modules["stem.0"], nn.Conv2d)
    assert isinstance(modules["stem.1"], nn.BatchNorm2d)
    assert modules["blocks.0.fc"].bias is not None
    assert isinstance(modules["stem.0_1"], nn.Conv2d)  # used again
    assert not network.training
    _assert_as_runtime(path, _floats(*IMAGE))


# --- whole networks -------------------------------------------------------------------------------


def _assert_network_survives(model: nn.Module, size: int, path: Path, old: bool) -> None:
    import runtimes

    torch.manual_seed(0)
    model = settle(model)
    x = torch.randn(1, 3, size, size)
    if old:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (x,), str(path), dynamo=False, input_names=["x"],
                              dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}})  # fmt: skip
    else:
        path.write_bytes(runtimes.onnx_file(model, x))
    network, (takes,) = read(path)
    assert takes.shape == ((None, 3, None, None) if old else tuple(x.shape))
    with torch.no_grad():
        wanted, made = model(x), network(x)
    scale = wanted.abs().max().item()
    torch.testing.assert_close(made, wanted, rtol=TOLERANCE, atol=TOLERANCE * scale)
    theirs = torch.from_numpy(runtimes.by_onnxruntime(path, x)(None))
    torch.testing.assert_close(made, theirs, rtol=TOLERANCE, atol=TOLERANCE * scale)
    if old:
        y = torch.randn(2, 3, size + 32, size)
        with torch.no_grad():
            torch.testing.assert_close(network(y), model(y), rtol=TOLERANCE, atol=TOLERANCE * scale)


def test_a_network_of_ours(tmp_path):
    pytest.importorskip("onnxscript")
    _assert_network_survives(MobileNetV3(classes=5, width=0.25), 64, tmp_path / "n.onnx", False)


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", [MobileNetV1, MobileNetV3, EfficientNetB0, ResNet50])
def test_networks_of_ours(kind, old, tmp_path):
    pytest.importorskip("onnxscript")
    _assert_network_survives(kind(classes=10), 96, tmp_path / "n.onnx", old)


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "name", ["convnext_tiny", "mobilenetv3_large_100", "xception41", "vit_tiny_patch16_224"]
)
def test_networks_of_timm_as_files(name, old, tmp_path):
    timm = _imported("timm")
    if old and name.startswith("vit"):
        pytest.skip("it takes images of one size only")
    _assert_network_survives(timm.create_model(name), 224, tmp_path / "n.onnx", old)


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", ["densenet121", "googlenet", "shufflenet_v2_x0_5"])
def test_networks_of_torchvision_as_files(name, old, tmp_path):
    models = _imported("torchvision").models
    model = models.get_model(name, **({"init_weights": False} if name == "googlenet" else {}))
    _assert_network_survives(model, 224, tmp_path / "n.onnx", old)


# --- what is wrong --------------------------------------------------------------------------------


def test_files_that_are_broken(tmp_path):
    conv = [_node("Conv", "x w")]
    whole = _saved(tmp_path / "whole.onnx", conv, {"w": WEIGHT}, IMAGE)
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.onnx is empty"):
        read(tmp_path / "empty.onnx")
    for name, content in (("half", whole.read_bytes()[:300]), ("text", b"no network at all\n")):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.onnx is no ONNX file, or is broken \("):
            read(tmp_path / f"{name}.onnx")
    model = onnx.load(whole)
    onnx.save_model(model, tmp_path / "apart.onnx", save_as_external_data=True,
                    location="apart.data", size_threshold=0)  # fmt: skip
    _assert_as_runtime(tmp_path / "apart.onnx", _floats(*IMAGE))
    (tmp_path / "apart.data").unlink()
    with pytest.raises(ValueError, match=r"apart\.onnx has its weights in another file, which"):
        read(tmp_path / "apart.onnx")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing.onnx")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([_node("Einsum", "x", "a", equation="nchw->n"), _node("Einsum", "x", equation="nchw->n"),
          _node("Det", "x", "z")], r"has operators that are not read here: Einsum \(2×\), Det \(1"),
        ([onnx.helper.make_node("Relu", ["x"], ["y"], domain="com.own")],
         r"not read here: com\.own\.Relu \(1×\)"),
        ([_node("Conv", "x x")], "Conv of 'y' has a weight that is computed"),
        ([_node("ConvTranspose", "x w", auto_pad="SAME_UPPER")], "its padding worked out"),
        ([_node("ConvTranspose", "x w", pads=[0, 0, 1, 1])], "the same on both sides"),
        ([_node("BatchNormalization", "x r r r r", training_mode=1)], "is in training mode"),
        ([_node("Resize", "x  s", mode="cubic")], "Resize of 'y' has mode 'cubic', which"),
        ([_node("Clip", "x x")], "has bounds that are computed"),
        ([_node("ReduceMean", "x i")], "nothing makes 'i', which ReduceMean reads"),
        ([_node("MaxPool", "x", "y i", kernel_shape=[2, 2]), _node("Relu", "i", "z")],
         "more than one result of MaxPool is used"),
        ([_node("Relu", "x", "z")], "nothing makes its result 'y'"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(nodes, message, tmp_path):
    for node in nodes:  # an input that is left out
        if node.op_type == "Resize":
            del node.input[:]
            node.input.extend(["x", "", "s"])
    constants = {"w": _floats(6, 4, 3, 3), "r": ROW, "s": np.float32([1, 1, 2, 2])}
    path = _saved(tmp_path / "n.onnx", nodes, constants, IMAGE)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
