"""A fresh process from a saved model to its first result, for ``saved.py``.

    python first_result.py WHO FOLDER THREADS

reads ``input.npy`` of the folder, says on stdout when there is a result, and then writes it to
``WHO.npy``. Each imports what it needs and no more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[Path, np.ndarray, int], np.ndarray]


def pointwise(folder: Path, x: np.ndarray, threads: int) -> np.ndarray:
    import torch

    import pointwise.acceleration  # noqa: F401  (so that torch.load knows what it reads)

    torch.set_num_threads(threads)
    model = torch.load(folder / "pointwise.pt", weights_only=True)
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


def torch_eager(folder: Path, x: np.ndarray, threads: int) -> np.ndarray:
    """The model as a pickle: its class has to be known, and whoever reads it has to trust it."""
    import torch

    torch.set_num_threads(threads)
    model = torch.load(folder / "torch_eager.pt", weights_only=False)
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


def aotinductor(folder: Path, x: np.ndarray, threads: int) -> np.ndarray:
    import torch
    from torch._inductor import aoti_load_package

    torch.set_num_threads(threads)
    model = aoti_load_package(str(folder / "aotinductor.pt2"))
    return model(torch.from_numpy(x)).numpy()


def aotinductor_loader(folder: Path, x: np.ndarray, threads: int) -> np.ndarray:
    """Without what ``torch._inductor`` imports: the loader in C++, by its private name."""
    import torch

    torch.set_num_threads(threads)
    path = str(folder / "aotinductor.pt2")
    loader = torch._C._aoti.AOTIModelPackageLoader(path, "model", False, 1, -1)
    return loader.boxed_run([torch.from_numpy(x)])[0].numpy()


def onnxruntime(folder: Path, x: np.ndarray, threads: int) -> np.ndarray:
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(folder / "onnxruntime.onnx"), options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def openvino(folder: Path, x: np.ndarray, threads: int) -> np.ndarray:
    return _openvino(folder, x, threads, {})


def openvino_cache(folder: Path, x: np.ndarray, threads: int) -> np.ndarray:
    """With a folder in which OpenVINO keeps what it has compiled."""
    return _openvino(folder, x, threads, {"CACHE_DIR": str(folder / "openvino_cache")})


def _openvino(folder: Path, x: np.ndarray, threads: int, more: dict[str, str]) -> np.ndarray:
    import openvino as runtime

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32", **more}  # fmt: skip
    model = runtime.Core().compile_model(folder / "openvino.xml", "CPU", settings)
    return model(x)[0]


WHO: dict[str, Run] = {
    run.__name__: run
    for run in (pointwise, torch_eager, aotinductor, aotinductor_loader, onnxruntime, openvino,
                openvino_cache)
}  # fmt: skip

if __name__ == "__main__":
    who, place = sys.argv[1], Path(sys.argv[2])
    result = WHO[who](place, np.load(place / "input.npy"), int(sys.argv[3]))
    print("result", flush=True)
    np.save(place / f"{who}.npy", result)
