"""The witness's numbers: drawn for each entry from its name, whatever else runs before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn


class Draw:
    """Random tensors and modules, the same for the same name."""

    def __init__(self, name: str) -> None:
        self.generator = torch.Generator().manual_seed(crc32(name.encode()))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def uniform(
        self, *shape: int, low: float = 0, high: float = 1, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        found = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return (low + (high - low) * found).to(dtype)

    def image(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """``[N, C, H, W]``, channels_last."""
        return self.normal(*shape, dtype=dtype).to(memory_format=torch.channels_last)

    def fill(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Numbers as training leaves them into every parameter and buffer, by their names alone."""
        module.to(dtype)
        for name, tensor in sorted(module.state_dict().items()):
            own = Draw(f"{name} {tuple(tensor.shape)}")
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                new = own.uniform(*tensor.shape, low=0.5, high=1.5)
            elif tensor.dim() < 2:
                new = 0.2 * own.normal(*tensor.shape)
            else:
                new = own.normal(*tensor.shape) * (1.5 / tensor[0].numel()) ** 0.5
            tensor.copy_(new.to(tensor))
        return module

    def gradients(
        self, function: Callable[..., Any], tensors: Mapping[str, Tensor | None]
    ) -> dict[str, Tensor | None]:
        """The result and the gradients of every tensor, for a random gradient of the result."""
        leaves = {
            name: None if x is None else x.detach().requires_grad_() for name, x in tensors.items()
        }
        out = function(*leaves.values())
        out.backward(self.normal(*out.shape, dtype=out.dtype))
        return {"out": out} | {f"d_{k}": None if x is None else x.grad for k, x in leaves.items()}

    def training(self, module: nn.Module, *inputs: Tensor) -> dict[str, Any]:
        """One step's result, all gradients and what became of the buffers."""
        module.train().requires_grad_()
        own = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
        out = module(*own)
        out.backward(self.normal(*out.shape, dtype=out.dtype))
        return {
            "out": out,
            "d_inputs": [x.grad for x in own],
            "d_parameters": {
                k: None if x.grad is None else x.grad.clone() for k, x in module.named_parameters()
            },
            "buffers": {k: x.clone() for k, x in module.named_buffers()},
        }


def on_both_teams(call: Callable[[], Tensor]) -> Tensor:
    """What ``call`` gives on this number of threads, which is to be what it gives on one."""
    threads, found = torch.get_num_threads(), call()
    torch.set_num_threads(1)
    try:
        alone = call()
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found, alone, rtol=0, atol=0, equal_nan=True)
    return found
