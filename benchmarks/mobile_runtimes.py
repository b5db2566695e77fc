"""The same module run by what people use on phones and small boards: LiteRT, MNN, ncnn.

On torch's number of threads, in float32, images in PyTorch's order. LiteRT (XNNPACK) gets what
``litert_torch`` converts, MNN and ncnn what their own tools make of an ONNX file. None of them is
part of an extra: LiteRT's converter brings half a gigabyte of packages.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

WHO = LITERT, MNN, NCNN = "litert", "mnn", "ncnn"
_PACKAGES = {
    LITERT: ("ai_edge_litert", "litert_torch"),
    MNN: ("MNN", "onnx", "onnxscript"),
    NCNN: ("ncnn", "pnnx", "onnx", "onnxscript"),
}
_NAMES = {"ai_edge_litert": "ai-edge-litert", "litert_torch": "litert-torch"}


def missing() -> dict[str, str]:
    """Who takes no part here, and why."""
    reasons = {}
    for who, packages in _PACKAGES.items():
        lacking = [name for name in packages if importlib.util.find_spec(name) is None]
        if lacking:
            names = " ".join(_NAMES.get(name, name) for name in lacking)
            reasons[who] = f"not installed; run: pip install {names}"
    return reasons


def takes(who: str, image: Tensor) -> bool:
    """Whether a runtime takes such a batch; ncnn takes one image."""
    return who != NCNN or image.shape[0] == 1


def by_litert(model: nn.Module, image: Tensor) -> Callable[[object], Any]:
    """Converts a model and runs it with LiteRT."""
    litert_torch = importlib.import_module("litert_torch")
    interpreters = importlib.import_module("ai_edge_litert.interpreter")
    with _folder() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = folder / "model.tflite"
        litert_torch.convert(model, (image,)).export(str(file))
        content = file.read_bytes()
    interpreter = interpreters.Interpreter(
        model_content=content, num_threads=torch.get_num_threads()
    )
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]["index"]
    wanted = interpreter.get_output_details()[0]["index"]
    array = image.contiguous().numpy()

    def run(_: object) -> Any:
        interpreter.set_tensor(given, array)
        interpreter.invoke()
        return interpreter.get_tensor(wanted)

    return run


def by_mnn(file: bytes, image: Tensor) -> Callable[[object], Any]:
    """Converts an ONNX file and runs it with MNN."""
    mnn = importlib.import_module("MNN")
    folder = _folder()  # kept as long as what is run: MNN reads the file when it likes
    model, source = folder.path / "model.mnn", folder.path / "model.onnx"
    source.write_bytes(file)
    _convert("mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(model),
             "--bizCode", "pointwise")  # fmt: skip
    interpreter = mnn.Interpreter(str(model))
    session = interpreter.createSession(
        {"numThread": torch.get_num_threads(), "backend": "CPU", "precision": "high"}
    )
    given, wanted = interpreter.getSessionInput(session), interpreter.getSessionOutput(session)
    interpreter.resizeTensor(given, tuple(image.shape))
    interpreter.resizeSession(session)
    shape, array = wanted.getShape(), image.contiguous().numpy()
    kind, order = mnn.Halide_Type_Float, mnn.Tensor_DimensionType_Caffe
    source_tensor = mnn.Tensor(tuple(image.shape), kind, array, order)

    def run(_: object) -> Any:
        assert folder.path.exists()
        given.copyFrom(source_tensor)
        interpreter.runSession(session)
        result = mnn.Tensor(shape, kind, np.zeros(shape, np.float32), order)
        wanted.copyToHostTensor(result)
        return np.array(result.getNumpyData())

    return run


def by_ncnn(file: bytes, image: Tensor) -> Callable[[object], Any]:
    """Converts an ONNX file for one image and runs it with ncnn."""
    ncnn = importlib.import_module("ncnn")
    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, name, False)
    with _folder() as folder:
        (folder / "model.onnx").write_bytes(file)
        shape = ",".join(map(str, image.shape))
        _convert("pnnx", "model.onnx", f"inputshape=[{shape}]f32", "fp16=0", folder=folder)
        net.load_param(str(folder / "model.ncnn.param"))
        net.load_model(str(folder / "model.ncnn.bin"))
    given, wanted = net.input_names()[0], net.output_names()[0]
    array = image[0].contiguous().numpy()

    def run(_: object) -> Any:
        extractor = net.create_extractor()
        extractor.input(given, ncnn.Mat(array))
        return np.array(extractor.extract(wanted)[1])[None]

    return run


BY_FILE = {MNN: by_mnn, NCNN: by_ncnn}


class _folder:
    """A folder that is gone with its last user."""

    def __init__(self) -> None:
        self._held = tempfile.TemporaryDirectory(prefix="pointwise-bench-")
        self.path = Path(self._held.name)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self._held.cleanup()


def _convert(tool: str, *arguments: str, folder: Path | None = None) -> None:
    """Runs a tool that a package has put beside Python."""
    command = [str(Path(sys.executable).parent / tool), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{tool} cannot convert the model: {said[-1] if said else 'no reason'}")
