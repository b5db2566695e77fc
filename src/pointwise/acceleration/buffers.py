"""What a plan moves about: values, the memory they lie in, and how much of it is needed at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_LINE = 64  # bytes; every buffer begins at a cache line


@dataclass(eq=False)
class Buffer:
    """Memory of one result: a place in the arena, or, of tensors from elsewhere, a slot."""

    size: int  # bytes
    slot: int | None = None  # of the run's tensors, if it is none of the arena
    born: int = -1  # the first step that writes it
    dies: int = -1  # the last step that reads it
    place: int = 0  # bytes from the beginning of the arena
    is_rigid: bool = False  # somebody relies on how its numbers lie
    constant: Tensor | None = field(default=None, repr=False)  # whose memory it is, if it is one's


@dataclass(eq=False)
class Value:
    """A tensor of a plan: a buffer and how it is read; ``fake`` has its shape, strides and type."""

    fake: Tensor
    buffer: Buffer
    tensor: Tensor | None = field(default=None, repr=False)  # real, as soon as there is an arena

    @property
    def shape(self) -> torch.Size:
        return self.fake.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.fake.dtype

    def real(self, arena: Tensor) -> Tensor:
        """The tensor in the arena; of a slot, one with the same shape and an address of its own."""
        if self.tensor is None:
            fake, buffer = self.fake, self.buffer
            if buffer.constant is not None:
                begin = buffer.constant.storage_offset() + int(fake.storage_offset())
                self.tensor = buffer.constant.as_strided(fake.shape, fake.stride(), begin)
            elif buffer.slot is None:
                size = fake.element_size()
                first = (
                    arena.data_ptr() - arena.untyped_storage().data_ptr() + buffer.place
                ) // size
                flat = torch.empty(0, dtype=fake.dtype)
                self.tensor = flat.set_(
                    arena.untyped_storage(), first + int(fake.storage_offset()), fake.shape,
                    fake.stride(),
                )  # fmt: skip
            else:
                self.tensor = torch.empty_strided(fake.shape, fake.stride(), dtype=fake.dtype)
        return self.tensor


def arrange(buffers: Sequence[Buffer]) -> int:
    """Gives each buffer a place so that those in use at the same time do not overlap.

    The largest first, each at the lowest place that is free all the time it is needed. Returns the
    bytes of the whole arena. Source: Pisarchyk and Lee, "Efficient Memory Management for Deep
    Neural Net Inference", 2020, "greedy by size".
    """
    placed: list[Buffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda buffer: -buffer.size):
        at = 0
        for other in placed:  # in the order of their places
            if other.born > buffer.dies or other.dies < buffer.born:
                continue
            if at + buffer.size <= other.place:
                break
            at = max(at, other.place + -(-other.size // _LINE) * _LINE)
        buffer.place = at
        placed.append(buffer)
        placed.sort(key=lambda buffer: buffer.place)
        total = max(total, at + -(-buffer.size // _LINE) * _LINE)
    return total


def new_arena(size: int) -> Tensor:
    """So many bytes, from a cache line on."""
    with torch.inference_mode(False):
        room = torch.empty(size + _LINE, dtype=torch.uint8)
    return room[-room.data_ptr() % _LINE :]


def empty(shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor without memory."""
    return torch.empty_strided(tuple(shape), tuple(strides), dtype=dtype, device="meta")


def is_pixels(fake: Tensor) -> bool:
    """Whether an image's channels lie side by side, and pixels behind one another."""
    return fake.dim() == 4 and fake.is_contiguous(memory_format=torch.channels_last)


def are_parts(fake: Tensor) -> bool:
    """Whether an image is that, or some channels of it: pixels as far apart as those of another."""
    if fake.dim() != 4:
        return False
    _, channels, height, width = fake.shape
    pixel = next((fake.stride(dim) for dim in (3, 2, 0) if fake.shape[dim] > 1), channels)
    wanted = zip(fake.shape, fake.stride(), (height * width * pixel, 1, width * pixel, pixel),
                 strict=True)  # fmt: skip
    return pixel >= channels and all(size == 1 or own == step for size, own, step in wanted)


def strides_of(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Dense strides with the dimensions of ``order`` from the outermost to the innermost."""
    strides, step = [0] * len(shape), 1
    for dim in reversed(order):
        strides[dim] = step
        step *= max(1, shape[dim])
    return tuple(strides)


def order_of(strides: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """The dimensions from the outermost to the innermost, as strides have them in memory."""
    dims = range(len(shape))
    return tuple(sorted(dims, key=lambda dim: (-strides[dim], dim)))


def layout_of(value: object) -> tuple[int, ...] | None:
    """``order_of`` a traced tensor, whose sizes may be open; None where it cannot be known."""
    from torch.fx.experimental.symbolic_shapes import guarding_hint_or_throw as hint

    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return None
    try:
        strides, shape = ([hint(x) for x in part] for part in (value.stride(), value.shape))
    except Exception:  # sizes that depend on values
        return None
    return order_of(strides, shape)
