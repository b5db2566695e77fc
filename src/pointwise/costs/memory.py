"""The peak memory of activations, each from when it is made to when nothing refers to it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class Live:
    """The memory that operators gave their results, as long as anything refers to it.

    Tensors without data live as long as those with data would: until Python lets go of them.
    """

    def __init__(self, kept: Iterable[Tensor]) -> None:
        """``kept`` are tensors that are no activations, such as weights."""
        self._kept = {tensor.untyped_storage()._cdata for tensor in kept}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0
        self.peak_at = ""

    def is_known(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory is somebody else's: a weight's, or that of an activation."""
        key = tensor.untyped_storage()._cdata
        return key in self._kept or (key in self._live and not self._live[key][0].expired())

    def add(self, tensors: Iterable[Tensor], where: str = "") -> None:
        """Adds tensors that an operator has just returned, while its arguments are still alive."""
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._kept and storage._cdata not in self._live:
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        now = sum(size for _, size in self._live.values())
        if now > self.peak:
            self.peak, self.peak_at = now, where
