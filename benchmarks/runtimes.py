"""The same module run by others: PyTorch in its ways, ONNX Runtime, OpenVINO.

All of them on torch's number of threads, in float32, as a user would set them up: ONNX Runtime and
OpenVINO get the file that ``torch.onnx.export`` writes (which folds batch norm into the weights, as
they would themselves), a fixed batch, and a NumPy array in PyTorch's order of dimensions.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pointwise.extras import import_extra

COMPILE, ONNXRUNTIME, OPENVINO = "torch_compile", "onnxruntime", "openvino"


def missing(inference: bool, quick: bool) -> dict[str, str]:
    """Who takes no part here, and why. The runtimes are for inference only."""
    reasons = {}
    if reason := "compiling is not quick" if quick else _why_no_compiler():
        reasons[COMPILE] = reason
    if inference:
        for who in (ONNXRUNTIME, OPENVINO):
            lacking = [
                package
                for package in ("onnx", "onnxscript", who)
                if importlib.util.find_spec(package) is None
            ]
            if lacking:
                reasons[who] = (
                    f"{' and '.join(lacking)} not installed; run: pip install 'pointwise[bench]'"
                )
    return reasons


@cache
def _why_no_compiler() -> str | None:
    """Tries ``torch.compile``, which needs a C++ compiler on the CPU."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(64))
    except Exception as error:  # many kinds: no compiler, a broken one, an unsupported Python
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    finally:
        torch._dynamo.reset()
    return None


def infer(module: Callable[[Tensor], Tensor], image: Tensor) -> Callable[[object], Tensor]:
    """Runs ``module`` without gradients."""

    def run(_: object) -> Tensor:
        with torch.inference_mode():
            return module(image)

    return run


def compiled(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """``torch.compile`` with its default backend; compiles at the first call.

    What was compiled before is forgotten, as otherwise it would be looked through at every call.
    """
    torch._dynamo.reset()
    return torch.compile(module)


def onnx_file(module: nn.Module, image: Tensor) -> bytes:
    """``module`` for ``image``'s shape as an ONNX file."""
    import_extra("onnxscript", "bench")
    with _quiet():
        program = torch.onnx.export(module, (image,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()


def convolution_file(conv: nn.Conv2d, image: Tensor) -> bytes:
    """A single convolution without bias as an ONNX file; exporting it would take a second."""
    onnx = import_extra("onnx", "bench")
    stride, pad = conv.stride[0], int(conv.padding[0])
    weight = onnx.numpy_helper.from_array(conv.weight.detach().contiguous().numpy(), "weight")
    node = onnx.helper.make_node(
        "Conv", ["x", "weight"], ["y"], strides=[stride] * 2, pads=[pad] * 4, group=conv.groups
    )
    size = [image.shape[0], conv.out_channels] + [(s - 1) // stride + 1 for s in image.shape[2:]]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", list(image.shape)), ("y", size))
    ]
    graph = onnx.helper.make_graph([node], "convolution", values[:1], values[1:], [weight])
    versions = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=versions, ir_version=10).SerializeToString()


def by_onnxruntime(file: bytes | Path, image: Tensor) -> Callable[[object], Any]:
    """Runs an ONNX file with ONNX Runtime."""
    onnxruntime = import_extra("onnxruntime", "bench")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    model = str(file) if isinstance(file, Path) else file
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image.contiguous().numpy()}
    return lambda _: session.run(None, feed)[0]


def by_openvino(
    file: bytes | Path, image: Tensor, precision: str = "f32"
) -> Callable[[object], Any]:
    """Runs an ONNX file with OpenVINO.

    Some processors would use bfloat16 unasked: float32 is asked for, as everyone computes in it.
    """
    openvino = import_extra("openvino", "bench")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    core = openvino.Core()
    model = core.read_model(file if isinstance(file, Path) else io.BytesIO(file))
    if model.is_dynamic():
        model.reshape(list(image.shape))
    request = core.compile_model(model, "CPU", settings)
    request = request.create_infer_request()
    array = image.contiguous().numpy()
    return lambda _: request.infer(array, share_inputs=True, share_outputs=True)[0]


@contextmanager
def _quiet():
    """Without what the exporter tells about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
