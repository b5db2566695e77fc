"""ONNX files as PyTorch: every operator as ONNX Runtime has it, whole networks, broken files."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from both_ways import assert_as_eager, exported
from other_libraries import imported
from random_networks import settle
from torch import nn

from pointwise.networks import EfficientNetB0, MobileNetV1, MobileNetV3, ResNet50
from pointwise.onnx.file import read

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


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(kind, direction, tmp_path):
    gates, count = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 1 + (direction == "bidirectional")
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    more |= {"activations": ["Relu"] * count} if kind == "RNN" else {}
    constants = {
        "w": _floats(count, 5 * gates, 4), "r": _floats(count, 5 * gates, 5),
        "b": _floats(count, 10 * gates), "h": _floats(count, 3, 5), "c": _floats(count, 3, 5),
    }  # fmt: skip
    states = ("h", "c") if kind == "LSTM" else ("h",)
    for name, inputs in (("bare", ("x", "w", "r")), ("all", ("x", "w", "r", "b", "", *states))):
        outputs = ("y", *(f"y_{state}" for state in states))
        node = onnx.helper.make_node(
            kind, inputs, outputs, hidden_size=5, direction=direction, **more
        )
        path = _saved(tmp_path / f"{name}.onnx", [node], constants, (7, 3, 4), outputs)
        _assert_as_runtime(path, _floats(7, 3, 4))


@pytest.mark.parametrize("old", [False, True])
def test_recurrent_layers_as_pytorch_exports_them(old, tmp_path):
    class Lines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 6, 3)
            self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
            self.gru = nn.GRU(10, 3)

        def forward(self, x):
            found, _ = self.lstm(self.conv(x).transpose(1, 2))
            return self.gru(found)[0]

    model, x = Lines().eval(), torch.rand(2, 4, 9)
    path = tmp_path / "lines.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=not old, input_names=["x"])
    _assert_as_runtime(path, x.numpy())
    with torch.no_grad():
        torch.testing.assert_close(read(path)[0](x), model(x))


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


NEAREST = ("round_prefer_floor", "floor", "ceil")
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric",
               "tf_half_pixel_for_nn")  # fmt: skip


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", [*NEAREST, "linear"])
def test_resize_takes_the_pixels_that_the_runtime_takes(mode, coordinates, tmp_path):
    way = {"mode": "linear"} if mode == "linear" else {"mode": "nearest", "nearest_mode": mode}
    way["coordinate_transformation_mode"] = coordinates
    x = _floats(1, 2, 7, 10)
    for scales in ([1, 1, 2, 3], [1, 1, 1.5, 0.5], [1, 1, 0.7, 2.3], [1, 1, 1 / 7, 0.1]):
        node = _node("Resize", "x none s", **way)
        constants = {"none": _floats(0), "s": np.float32(scales)}
        path = _saved(tmp_path / "n.onnx", [node], constants, (None,) * 4, opset=19)
        _assert_as_runtime(path, x)
    nodes = [
        _node("Shape", "x", "nc", start=0, end=2),
        _node("Concat", "nc hw", "sizes", axis=0),
        _node("Resize", "x none none sizes", **way),
    ]
    for sizes in ((13, 7), (1, 1), (14, 30), (3, 21)):
        constants = {"none": _floats(0), "hw": _ints(*sizes)}
        path = _saved(tmp_path / "n.onnx", nodes, constants, (None,) * 4, opset=19)
        _assert_as_runtime(path, x)
        _assert_as_runtime(path, _floats(2, 2, 5, 6))


ODD = {  # What means something else in another version, of another type, or left at its default.
    "resize_old": ("Resize", {}, [np.float32([1, 1, 1.5, 0.7])], {"opset": 10}),
    "resize_axes": ("Resize", {"axes": [3, 1]}, [_floats(0), np.float32([2, 0.5])], {}),
    "clip_old_default": ("Clip", {"min": 0.0}, [], {"opset": 7}),
    "squeeze_none_chosen": ("Squeeze", {}, [_ints()], {"shape": (1, 3, 1)}),
    "sum_whole": ("ReduceSum", {"keepdims": 0}, [_ints(1)], {"dtype": np.int32, "shape": (3, 4)}),
    "sum_of_none": ("ReduceSum", {"noop_with_empty_axes": 1}, [_ints()], {}),
    "pow_mixed": ("Pow", {}, [np.float64([0.5] * 11)], {"opset": 15, "positive": True}),
    "pow_whole": ("Pow", {}, [_floats(4) * 0 + 2.5],
                  {"dtype": np.int64, "shape": (3, 4), "opset": 15, "positive": True}),
    "average_ceil_uneven": ("AveragePool", {**POOL, "pads": [0, 0, 1, 1], "ceil_mode": 1}, [],
                            {"shape": (1, 2, 7, 10)}),
    "average_ceil_counted": ("AveragePool", {**POOL, "pads": [0, 1, 1, 1], "ceil_mode": 1,
                                             "count_include_pad": 1}, [], {}),
    "largest_ceil_uneven": ("MaxPool", {"kernel_shape": [3, 3], "strides": [3, 3],
                                        "pads": [0, 0, 1, 1], "ceil_mode": 1}, [], {}),
    "largest_bytes": ("MaxPool", {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}, [],
                      {"dtype": np.int8}),
    "pad_channels_edge": ("Pad", {"mode": "edge"}, [_ints(0, 2, 3, 1, 1, 0, 0, 1)], {}),
    "pad_channels_mirrored": ("Pad", {"mode": "reflect"}, [_ints(0, 2, 3, 1, 1, 0, 0, 1)], {}),
    "pad_axes": ("Pad", {}, [_ints(1, 2, 0, 1), np.float32(2), _ints(-1, 1)], {}),
    "layer_norm_spread": ("LayerNormalization", {"axis": 1}, [_floats(11)], {}),
    "layer_norm_last": ("LayerNormalization", {}, [_floats(9, 11)], {}),
    "layer_norm_one": ("LayerNormalization", {"axis": -2}, [_floats(9, 1), _floats(11)], {}),
    "flatten_row": ("Flatten", {}, [], {"shape": (5,)}),
    "flatten_none": ("Flatten", {}, [], {"shape": (0, 6)}),
    "softmax_negative": ("Softmax", {"axis": -2}, [], {"opset": 12}),
    "shape": ("Shape", {}, [], {}),
    "shape_part": ("Shape", {"start": -3, "end": -1}, [], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_one_operator_that_is_odd(name, tmp_path):
    kind, attributes, given, options = ODD[name]
    shape, dtype = options.get("shape", IMAGE), options.get("dtype", np.float32)
    constants = {f"c{i}": np.asarray(value) for i, value in enumerate(given)}
    node = onnx.helper.make_node(kind, ["x", *constants], ["y"], **attributes)
    path = _saved(tmp_path / "n.onnx", [node], constants, (None,) * len(shape),
                  opset=options.get("opset", 18), dtype=dtype)  # fmt: skip
    x = 9 * _floats(*shape)
    _assert_as_runtime(path, (abs(x) if "positive" in options else x).astype(dtype))


@pytest.mark.parametrize("kind", ["Div", "Pow", "Sub"])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int32])
def test_a_constant_comes_first(kind, dtype, tmp_path):
    path = _saved(tmp_path / "n.onnx", [_node(kind, "c x")], {"c": np.array(7, dtype)}, (4,),
                  dtype=dtype)  # fmt: skip
    _assert_as_runtime(path, np.array([2, 3, 1, 4], dtype))


SIZES = {"two": _ints(2), "half": np.float32(0.25), "all": _ints(0), "minus": _ints(-7),
         "none": _ints()}  # fmt: skip


@pytest.mark.parametrize(
    "nodes",
    [
        [_node("Gather", "s all"), _node("Mul", "s two", "z")],
        [_node("Div", "s minus"), _node("Equal", "s two", "z")],
        [_node("Cast", "s", "f", to=1), _node("Mul", "f half", "y"), _node("Cast", "y", "z", to=7)],
        [_node("Equal", "s two", "e"), _node("Cast", "e", "y", to=7),
         _node("Where", "e minus s", "z")],
        [_node("Unsqueeze", "s two_axes"), _node("ReduceSum", "s all", "z")],
        [_node("Gather", "s all", "a"), _node("Cast", "a", "f", to=1), _node("Mul", "x f"),
         _node("Reshape", "a none", "z")],
    ],
)  # fmt: skip
def test_sizes_as_tensors(nodes, tmp_path):
    constants = {**SIZES, "two_axes": _ints(0)}
    shape = [_node("Shape", "x", "s"), *nodes]
    path = _saved(tmp_path / "n.onnx", shape, constants, (None,) * 4, ("y", "z"))
    for sizes in (IMAGE, (1, 6, 4, 5)):
        _assert_as_runtime(path, _floats(*sizes))


def test_results_are_no_memory_of_the_networks(tmp_path):
    nodes = [_node("Shape", "x", "s"), _node("Expand", "k s", "wide"), _node("Identity", "k", "y")]
    constants = {"k": _floats(1)}
    path = _saved(tmp_path / "n.onnx", nodes, constants, IMAGE, ("wide", "y", "k"))
    network, _ = read(path)
    x = torch.rand(*IMAGE)
    for result in network(x):
        result.fill_(77)
    _assert_as_runtime(path, x.numpy())
    assert all((result == torch.from_numpy(constants["k"])).all() for result in network(x))


def test_a_bias_stays_out_of_what_others_read(tmp_path):
    nodes = [_node("MatMul", "x w", "a"), _node("Identity", "a", "b"), _node("Add", "b bias")]
    constants = {"w": _floats(11, 4), "bias": _floats(4)}
    path = _saved(tmp_path / "n.onnx", nodes, constants, IMAGE, ("a", "y"))
    _assert_as_runtime(path, _floats(*IMAGE))


def test_inputs_of_any_name_and_results_left_out(tmp_path):
    split = _node("Split", "x", "a b c", axis=1, num_outputs=3)
    split.output[1] = ""
    clip = onnx.helper.make_node("Clip", ["a", "", "high"], ["y"])
    path = _saved(tmp_path / "n.onnx", [split, clip], {"high": np.float32(0.1)}, IMAGE)
    x = torch.rand(*IMAGE)
    torch.testing.assert_close(read(path)[0](x), x[:, :2].clamp(max=0.1))
    kind = onnx.TensorProto.FLOAT
    names = ["self", "in", "a.1", "a_1"]
    nodes = [_node("Sub", "self in", "s"), _node("Sub", "a.1 a_1", "t"), _node("Sub", "s t")]
    graph = onnx.helper.make_graph(
        nodes, "graph", [onnx.helper.make_tensor_value_info(name, kind, [2]) for name in names],
        [onnx.helper.make_empty_tensor_value_info("y")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    onnx.save(model, path)
    network, takes = read(path)
    assert [each.name for each in takes] == names
    assert network(*(torch.tensor([n, n]) for n in (9.0, 1.0, 4.0, 2.0))).tolist() == [6, 6]


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


@pytest.mark.rare
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", [MobileNetV1, MobileNetV3, EfficientNetB0, ResNet50])
def test_networks_of_ours(kind, old, tmp_path):
    pytest.importorskip("onnxscript")
    _assert_network_survives(kind(classes=10), 96, tmp_path / "n.onnx", old)


@pytest.mark.rare
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "name", ["convnext_tiny", "mobilenetv3_large_100", "xception41", "vit_tiny_patch16_224"]
)
def test_networks_of_timm_as_files(name, old, tmp_path):
    timm = imported("timm")
    if old and name.startswith("vit"):
        pytest.skip("it takes images of one size only")
    _assert_network_survives(timm.create_model(name), 224, tmp_path / "n.onnx", old)


@pytest.mark.rare
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", ["densenet121", "googlenet", "shufflenet_v2_x0_5"])
def test_networks_of_torchvision_as_files(name, old, tmp_path):
    models = imported("torchvision").models
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
    outside = tmp_path / "inner" / "outside.onnx"
    outside.parent.mkdir()
    for place in ("../apart.data", str(tmp_path / "apart.data"), "a/../../apart.data"):
        model = onnx.load(whole)
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], place)
        model.graph.initializer[0].ClearField("raw_data")
        outside.write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match=r"has weights in '.*', which is outside of its fol"):
            read(outside)


REFUSED = {
    "Relu of 'y' has the attribute 'foo', which version": ("Relu", {"foo": 1}, 18),
    "ReduceMean of 'y' has the attribute 'axes', which version 18 does": ("ReduceMean",
                                                                          {"axes": [1]}, 18),
    "LeakyRelu of 'y' has the attribute 'alpha' of another kind than FLOAT": ("LeakyRelu",
                                                                             {"alpha": 1}, 18),
    "Gelu of 'y' is no operator of version 18": ("Gelu", {}, 18),
    "LRN of 'y' has no attribute 'size'": ("LRN", {}, 18),
    "LRN of 'y' has a size of 4, and no middle": ("LRN", {"size": 4}, 18),
    "Add of 'y' has 1 inputs, not 2": ("Add", {}, 18),
    "Gelu of 'y' has approximate 'sigmoid', which": ("Gelu", {"approximate": "sigmoid"}, 20),
    r"AveragePool of 'y' has pads \[-1, 0, 0, 0\] around": (
        "AveragePool", {**POOL, "pads": [-1, 0, 0, 0]}, 18),
    "AveragePool of 'y' has gaps in its windows": ("AveragePool", {**POOL, "dilations": [2, 2]},
                                                   19),
    r"MaxPool of 'y' has auto_pad 'SAME_UPPER' with dilations \[2, 2\]": (
        "MaxPool", {**POOL, "dilations": [2, 2], "auto_pad": "SAME_UPPER"}, 18),
    "Dropout of 'y' is in training mode": ("Dropout", {}, 6),
    "Split of 'y' has 1 results and num_outputs 2": ("Split", {"num_outputs": 2}, 18),
    "Cast of 'y' has no attribute 'to'": ("Cast", {}, 18),
    "numbers of type string": ("Cast", {"to": 8}, 18),
    "Transpose of 'y' .*another kind than INTS": ("Transpose", {"perm": 1}, 18),
    "it needs version 99 of ONNX's operators; known here are 1 to": ("Relu", {}, 99),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_attributes_are_read_or_refused(message, tmp_path):
    kind, attributes, version = REFUSED[message]
    path = _saved(tmp_path / "n.onnx", [_node(kind, "x", **attributes)], {}, IMAGE, opset=version)
    with pytest.raises(ValueError, match=rf"cannot be read: {message}"):
        read(path)


@pytest.mark.parametrize(
    "attributes",
    [{"antialias": 1}, {"exclude_outside": 1}, {"keep_aspect_ratio_policy": "not_larger"},
     {"coordinate_transformation_mode": "tf_crop_and_resize"}, {"mode": "cubic"},
     {"nearest_mode": "round_prefer_ceil"},
     {"coordinate_transformation_mode": "half_pixel_symmetric"}],
)  # fmt: skip
def test_resizing_that_is_refused(attributes, tmp_path):
    node = _node("Resize", "x none none sizes", **attributes)
    constants = {"none": _floats(0), "sizes": _ints(2, 6, 10, 10)}
    path = _saved(tmp_path / "n.onnx", [node], constants, IMAGE, opset=19)
    with pytest.raises(ValueError, match=f"Resize of 'y' has .*{next(iter(attributes))} "):
        read(path)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([_node("Hardmax", "x", "a"), _node("Hardmax", "x"), _node("Det", "x", "z")],
         r"has operators that are not read here: Hardmax \(2×\), Det \(1"),
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
        ([_node("Relu", "x"), _node("Neg", "x")], "'y' is made twice"),
        ([_node("Reshape", "x i"), _node("Relu", "x", "i")], "nothing makes 'i'"),
        ([_node("Cast", "x", "i", to=7), _node("Reshape", "x i")],
         "Reshape of 'y' has shape that depend on values of the input"),
        ([_node("Conv", "x w", kernel_shape=[1, 1])], r"has kernel_shape \[1, 1\] and a kernel of"),
        ([_node("LayerNormalization", "x r", stash_type=10)], "has stash_type 10, which"),
        ([_node("GRU", "l g h", hidden_size=5)], "resets before its product"),
        ([_node("LSTM", "l l h", hidden_size=5)], "has a weight that is computed"),
        ([_node("RNN", "l n m", hidden_size=5, clip=1.0)], "keeps its numbers within bounds"),
        ([_node("RNN", "l n m", hidden_size=5, activations=["Sigmoid"])],
         r"has activations \['Sigmoid'\], and PyTorch's has \['Tanh'\]"),
        ([_node("RNN", "l n m", hidden_size=4)], "has hidden_size 4 and weights of 5"),
        ([_node("Gather", "w r")], "Gather of 'y' cannot be worked out: "),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(nodes, message, tmp_path):
    for node in nodes:  # an input that is left out
        if node.op_type == "Resize":
            del node.input[:]
            node.input.extend(["x", "", "s"])
    constants = {"w": _floats(6, 4, 3, 3), "r": ROW, "s": np.float32([1, 1, 2, 2]),
                 "g": _floats(1, 15, 11), "h": _floats(1, 15, 5), "n": _floats(1, 5, 11),
                 "m": _floats(1, 5, 5)}  # fmt: skip
    nodes = [_node("Squeeze", "x", "l"), *nodes] if "l" in nodes[0].input else nodes
    path = _saved(tmp_path / "n.onnx", nodes, constants, IMAGE)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
