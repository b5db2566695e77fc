"""A plan while it is built: what its launches are, and which memory they read and write.

What a lowering is given (values, constants, convolutions that are deferred) and may ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration.buffers import (
    Buffer,
    Value,
    are_parts,
    empty,
    is_pixels,
    order_of,
    strides_of,
)
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.plan import NativeCall, PlainCall, copy_
from pointwise.convolution import epilogue
from pointwise.engine.choose import Prepared
from pointwise.engine.cpu.by_dtype import ZEROS
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops import chain

Found = Value | str
"""What a lowering makes, or in words why the call stays plain PyTorch."""


@dataclass(frozen=True)
class Constant:
    """An operand that is a constant."""

    node: fx.Node


@dataclass(eq=False)
class Deferred:
    """A convolution that is not launched yet: the one behind it may compute it on the way.

    A depthwise one may do so for the one ``before`` it, and hand both on.
    """

    x: Value
    prepared: Prepared
    make: Callable[[Builder], Value]  # it alone
    before: Deferred | None = None
    value: Value | None = None
    late: str = "none"  # an activation that its loop does not apply

    def settle(self, plan: Builder) -> Value:
        if self.value is None:
            self.value = self.make(plan)
        return self.value


def why_not(*operands: Any, activation: str = "none") -> str | None:
    values = [x for x in operands if isinstance(x, (Value, Deferred))]
    dtypes = {dtype_of(x) for x in values}
    if not values or any(isinstance(x, Constant) for x in operands):
        return "an operand is a constant"
    if len(dtypes) != 1 or not dtypes <= set(ZEROS):
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return f"kernels take float32 and float64, not {names}"
    if any(isinstance(x, Value) and x.fake.numel() == 0 for x in values):
        return "there is nothing to compute"
    return epilogue.why_not(activation, *dtypes)


def dtype_of(x: Any) -> torch.dtype:
    return x.dtype if isinstance(x, Value) else x.x.dtype


@dataclass(frozen=True, eq=False)
class MicroBatches:
    """Steps ``first … end`` of a plan, which run ``count`` times.

    ``wholes`` are batches, by the values that stand for some images of them, others in each run.
    """

    first: int
    end: int
    count: int
    wholes: dict[Value, Value]


class Builder:
    """The steps of a plan so far, and the buffers of what they compute."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.steps: list[NativeCall | PlainCall] = []
        self.buffers: list[Buffer] = []
        self.copies: dict[tuple[Value, tuple[int, ...]], Value] = {}
        self.origins: dict[Value, tuple[Value, int]] = {}  # of parts: of what, from which channel
        self.arena = torch.empty(0)
        self.stand_ins: list[tuple[Tensor, int]] = []  # tensors in place of a slot's
        self.ways: dict[fx.Node, str] = {}  # how calls run that could run otherwise, in words
        self.micro_batches: MicroBatches | None = None
        self.batch = 0  # which of the micro-batches is being made
        self.joins_by_copy = False  # of what leaves a micro-batch

    def settled(self, value: Any) -> Any:
        """A value that is there; one that waits for the convolution behind it is made now."""
        return value.settle(self) if isinstance(value, Deferred) else value

    def new(self, shape: Sequence[int], dtype: torch.dtype, pixels: bool = True) -> Value:
        """Room for a result: an image, channels_last, or anything else in PyTorch's order."""
        order = (0, 2, 3, 1) if pixels and len(shape) == 4 else range(len(shape))
        return self.room(shape, strides_of(shape, order), dtype)

    def room(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Value:
        fake = empty(shape, strides, dtype)
        buffer = Buffer(fake.numel() * fake.element_size())
        self.buffers.append(buffer)
        return Value(fake, buffer)

    def as_pixels(self, value: Value) -> Value:
        """An image with its channels last, copied where it is not so already."""
        if is_pixels(value.fake):
            return value
        return self.copied(value, strides_of(value.shape, (0, 2, 3, 1)))

    def as_parts(self, value: Value) -> Value:
        """An image whose pixels may be parts of wider ones."""
        return value if are_parts(value.fake) else self.as_pixels(value)

    def part(self, image: Value, begin: int, count: int) -> Value:
        """Some channels of an image, wherever that will be moved to."""
        origin, first = self.origins.get(image, (image, 0))
        begin += first
        if (begin, count) == (0, origin.shape[1]):
            return origin
        part = Value(origin.fake[:, begin : begin + count], origin.buffer)
        self.origins[part] = origin, begin
        return part

    def put_together(self, images: Sequence[Value]) -> list[Value]:
        """The same with neighbouring parts of one image as one part."""
        found: list[Value] = []
        for image in images:
            origin, begin = self.origins.get(image, (image, 0))
            if found and origin is not image:
                before, first = self.origins.get(found[-1], (found[-1], 0))
                if before is origin and first + found[-1].shape[1] == begin:
                    count = found.pop().shape[1] + image.shape[1]
                    image = self.part(origin, first, count)
            found.append(image)
        return found

    def moved(self, value: Value, whole: Value, begin: int) -> bool:
        """Whether what an image was written by writes it to channels of ``whole`` instead.

        So it is where everybody who reads or writes it asks how far apart its pixels lie.
        """
        own, joint = value.buffer, whole.buffer
        size = value.fake.numel() * value.fake.element_size()
        if own.slot is not None or own.is_rigid or own.born < 0 or own.size != size:
            return False
        if self.joins_by_copy or not is_pixels(value.fake):
            return False
        value.fake = whole.fake[:, begin : begin + value.shape[1]]
        value.buffer = joint
        for part, (origin, first) in self.origins.items():
            if origin is value:
                part.fake = value.fake[:, first : first + part.shape[1]]
                part.buffer = joint
        joint.born = own.born if joint.born < 0 else min(joint.born, own.born)
        joint.dies = max(joint.dies, own.dies)
        self.buffers.remove(own)
        return True

    def as_rows(self, value: Value) -> Value:
        """A tensor in PyTorch's order, copied where it is not so already."""
        if value.fake.is_contiguous():
            return value
        return self.copied(value, strides_of(value.shape, range(len(value.shape))))

    def copied(self, value: Value, strides: tuple[int, ...]) -> Value:
        """The same numbers with other strides."""
        if (value, strides) not in self.copies:
            out = self.room(value.shape, strides, value.dtype)
            self.copy_into(out, value)
            self.copies[value, strides] = out
        return self.copies[value, strides]

    def copy_into(self, out: Value, x: Value) -> None:
        """A copy: a kernel's where what are neighbours in one are so in the other."""
        order = order_of(out.fake.stride(), out.shape)
        way = chain.collapsed(
            [out.shape[dim] for dim in order] or [1],
            [[part.fake.stride(dim) for dim in order] or [1] for part in (x, out)],
        )
        if out.dtype in ZEROS and out.fake.numel() and chain.why_not(way) is None:
            self.emit(lambda: chain.chain([self.real(x)], (), self.real(out), way), [x], out)
        else:
            self.write(out, [x], PlainCall(copy_, (out, x), {}, None, [], True))

    def regrouped(self, value: Value, groups: int) -> Value:
        """Images whose channel j·C + c, for j of so many groups, becomes channel c·groups + j."""
        images, channels, height, width = value.shape
        out = self.new(value.shape, value.dtype)
        sizes = (images, height * width, groups, channels // groups)
        parts = empty(sizes, strides_of(sizes, range(4)), value.dtype)
        sizes = (*sizes[:2], sizes[3], groups)
        turned = empty(sizes, strides_of(sizes, range(4)), value.dtype).mT
        views = Value(turned, out.buffer), Value(parts, value.buffer)
        self.write(views[0], [views[1]], PlainCall(copy_, views, {}, None, [], True))
        return out

    def fixed(self, found: Any) -> Tensor | None:
        """The tensor of a constant."""
        return None if found is None else self.constants.value(found.node)

    def held(self, constant: Constant) -> Value:
        """A constant as a value: it lies in memory of its own."""
        return self.constant(self.constants.value(constant.node))

    def constant(self, tensor: Tensor) -> Value:
        fake = empty(tensor.shape, tensor.stride(), tensor.dtype)
        return Value(fake, Buffer(0, constant=tensor))

    def emit(self, make: Callable[[], Launch], reads: Sequence[Value | None], out: Value,
             movable: Sequence[Value] = ()) -> Value:  # fmt: skip
        """One more launch; ``make`` is called as soon as there is an arena.

        ``movable`` are images which it takes as ``are_parts`` has them, when it is made.
        """
        self.write(out, reads, NativeCall(make), movable)
        return out

    def write(
        self, out: Value, reads: Sequence[Value | None], step: NativeCall | PlainCall,
        movable: Sequence[Value] = (),
    ) -> None:  # fmt: skip
        now = len(self.steps)
        for value in (*reads, out):
            if value is not None:
                value.buffer.dies = now
                value.buffer.is_rigid |= not any(value is part for part in movable)
        if out.buffer.born < 0:
            out.buffer.born = now
        self.steps.append(step)

    def real(self, value: Value) -> Tensor:
        """A value's tensor, as soon as there is an arena."""
        whole = None if self.micro_batches is None else self.micro_batches.wholes.get(value)
        tensor = (whole or value).real(self.arena)
        if whole is not None:
            images = value.shape[0]
            tensor = tensor[self.batch * images : (self.batch + 1) * images]
        if value.buffer.slot is not None:
            self.stand_ins.append((tensor, value.buffer.slot))
        return tensor
