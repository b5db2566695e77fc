"""A vector type for Numba: one register of floats, and the instructions that kernels are made of.

A Numba value of type ``Vector(float32, 16)`` is LLVM's ``<16 x float>``; each function here becomes
one or two instructions. Pointers are plain int64 addresses. The element type is chosen by an
argument, as in ``load(address, like)`` where ``like`` is any float of the wanted type, so that one
kernel source serves float32 and float64.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

from pointwise.engine.cpu.flow import chosen
from pointwise.engine.cpu.isa import ISA, has

REGISTER_BYTES = ISA.register_bytes
"""The size of a vector register: 64 (AVX-512), 32 (AVX2) or 16."""

MASKS_ARE_FREE = ISA.name == "avx512"
"""A store with a mask is one instruction. With AVX2 it is microcode on some processors (AMD's
before Zen 4: 20 cycles and more), so that whole registers are written without one."""


def lanes(dtype) -> int:
    """How many floats of a NumPy or Numba type fit in one register."""
    bits = dtype.bitwidth if hasattr(dtype, "bitwidth") else dtype.itemsize * 8
    return REGISTER_BYTES * 8 // bits


@intrinsic
def lanes_of(typingctx, like):
    """``lanes`` inside a kernel: a constant of the compiled code."""

    def codegen(context, builder, signature, arguments):
        return ir.IntType(64)(lanes(like))

    return types.int64(like), codegen


@intrinsic
def bytes_of(typingctx, like):
    """The size of one element in bytes, a constant of the compiled code."""

    def codegen(context, builder, signature, arguments):
        return ir.IntType(64)(like.bitwidth // 8)

    return types.int64(like), codegen


class Vector(types.Type):
    """The Numba type of one register."""

    def __init__(self, dtype, count: int) -> None:
        self.dtype = dtype
        self.count = count
        super().__init__(name=f"Vector({dtype}, {count})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_element(fe_type.dtype), fe_type.count))


def _element(dtype) -> ir.Type:
    if dtype == types.boolean:
        return ir.IntType(1)
    if isinstance(dtype, types.Integer):
        return ir.IntType(dtype.bitwidth)
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def vector_of(like) -> Vector:
    """The vector type for a scalar type, or the type itself if it is a vector."""
    return like if isinstance(like, Vector) else Vector(like, lanes(like))


def llvm_type(vector: Vector) -> ir.VectorType:
    return ir.VectorType(_element(vector.dtype), vector.count)


def _pointer(builder, address, element):
    return builder.inttoptr(address, element.as_pointer())


def _suffix(vector: Vector) -> str:
    kind = "i" if isinstance(vector.dtype, types.Integer) else "f"
    return f"v{vector.count}{kind}{vector.dtype.bitwidth}"


def call(builder, name: str, result, arguments):
    """Calls an LLVM intrinsic by its full name (llvmlite's own helper knows no vectors)."""
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


# Without the instruction, a product rounded once would be a function call for every lane.
_FMA = "fma" if ISA.title == "NEON" or has("fma") else "fmuladd"


def multiply_add(builder, a, b, c):
    """``a * b + c`` of vectors: rounded once, where the machine does that."""
    size = 32 if isinstance(a.type.element, ir.FloatType) else 64
    return call(builder, f"llvm.{_FMA}.v{a.type.count}f{size}", a.type, [a, b, c])


def prefetch(builder, address) -> None:
    """Asks for a cache line that will be read later; any address will do."""
    i32 = ir.IntType(32)
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    options = [i32(0), i32(2), i32(1)]  # to be read, into the second-level cache, data
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *options])


def splat(builder, scalar, count: int):
    """LLVM's way to say: this scalar in every lane."""
    shape = ir.VectorType(scalar.type, count)
    first = builder.insert_element(ir.Constant(shape, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(first, ir.Constant(shape, ir.Undefined), zeros)


def first_lanes(builder, many, count: int):
    """The mask of the first ``many`` lanes."""
    i32, i64 = ir.IntType(32), ir.IntType(64)
    iota = ir.Constant(ir.VectorType(i32, count), list(range(count)))
    most = builder.icmp_signed("<", many, i64(count))
    within = builder.trunc(builder.select(most, many, i64(count)), i32)
    return builder.icmp_signed("<", iota, splat(builder, within, count))


def masked_load(builder, address, mask, shape):
    """Loads the lanes of ``mask``, zeros elsewhere; never touches memory outside the mask."""
    zero = ir.Constant(shape, [0] * shape.count)
    if isinstance(shape.element, (ir.FloatType, ir.DoubleType)):
        zero = ir.Constant(shape, [0.0] * shape.count)
    pointer = _pointer(builder, address, shape)
    align = ir.IntType(32)(_bytes(shape.element))
    return call(builder, f"llvm.masked.load.{_name(shape)}.p0", shape, [pointer, align, mask, zero])


def masked_store(builder, address, value, mask) -> None:
    pointer = _pointer(builder, address, value.type)
    align = ir.IntType(32)(_bytes(value.type.element))
    name = f"llvm.masked.store.{_name(value.type)}.p0"
    call(builder, name, ir.VoidType(), [value, pointer, align, mask])


def load_lanes(builder, address, mask, shape):
    """The register at ``address``; of a ``mask``, where it is not None, only the lanes."""
    if mask is not None:
        return masked_load(builder, address, mask, shape)
    return builder.load(_pointer(builder, address, shape), align=_bytes(shape.element))


def store_lanes(builder, address, value, mask) -> None:
    """Writes a register to ``address``; of a ``mask``, where it is not None, only the lanes."""
    if mask is not None:
        masked_store(builder, address, value, mask)
    else:
        builder.store(
            value, _pointer(builder, address, value.type), align=_bytes(value.type.element)
        )


def load_some(builder, address, many, shape):
    """The first ``many`` elements, zeros behind them; reads nothing beyond. ``many`` is above 0."""

    def partial() -> list:
        if _masks_are_known(shape):
            return [masked_load(builder, address, first_lanes(builder, many, shape.count), shape)]
        slot = cgutils.alloca_once(builder, shape)
        builder.store(ir.Constant(shape, [0] * shape.count), slot)
        _copy_bytes(builder, slot, _pointer(builder, address, shape), many)
        return [builder.load(slot)]

    return _whole_or_not(builder, many, shape, lambda: [load_lanes(builder, address, None, shape)],
                         partial)[0]  # fmt: skip


def store_some(builder, address, value, many) -> None:
    """Writes the first ``many`` elements to ``address`` and nothing beyond; at least one."""
    shape = value.type

    def whole() -> list:
        store_lanes(builder, address, value, None)
        return []

    def partial() -> list:
        if _masks_are_known(shape):
            masked_store(builder, address, value, first_lanes(builder, many, shape.count))
        else:
            slot = cgutils.alloca_once(builder, shape)
            builder.store(value, slot)
            _copy_bytes(builder, _pointer(builder, address, shape), slot, many)
        return []

    _whole_or_not(builder, many, shape, whole, partial)


def _masks_are_known(shape) -> bool:
    """Whether there are loads and stores with a mask: AVX2 has none of bytes."""
    return MASKS_ARE_FREE or shape.element != ir.IntType(8)


def _copy_bytes(builder, target, source, many) -> None:
    cgutils.raw_memcpy(builder, target, source, many, 1, align=1)


def _whole_or_not(builder, many, shape, whole, partial) -> list:
    if MASKS_ARE_FREE:
        return partial()
    is_whole = builder.icmp_signed(">=", many, ir.IntType(64)(shape.count))
    return chosen(builder, is_whole, whole, partial)


def _bytes(element) -> int:
    if isinstance(element, ir.IntType):
        return element.width // 8
    return 4 if isinstance(element, ir.FloatType) else 8


def _name(shape) -> str:
    kind = "i" if isinstance(shape.element, ir.IntType) else "f"
    return f"v{shape.count}{kind}{8 * _bytes(shape.element)}"


def clamp(builder, value, low, high, count: int):
    """``value`` kept within the scalars ``low … high``; NaN stays NaN."""
    for bound, sign in ((low, ">"), (high, "<")):
        limit = splat(builder, bound, count)
        value = builder.select(builder.fcmp_ordered(sign, limit, value), limit, value)
    return value


@intrinsic
def within(typingctx, a, low, high):
    """``a`` kept within the scalars ``low … high``, lane by lane; NaN stays NaN."""

    def codegen(context, builder, signature, arguments):
        value, low, high = arguments
        return clamp(builder, value, low, high, a.count)

    return a(a, low, high), codegen


@intrinsic
def load(typingctx, address, like):
    """The register at ``address`` (any alignment)."""
    vector = vector_of(like)

    def codegen(context, builder, signature, arguments):
        pointer = _pointer(builder, arguments[0], llvm_type(vector))
        return builder.load(pointer, align=vector.dtype.bitwidth // 8)

    return vector(types.int64, like), codegen


@intrinsic
def load_first(typingctx, address, count, like):
    """The first ``count`` lanes from ``address``, zeros behind them; reads nothing beyond."""
    vector = vector_of(like)

    def codegen(context, builder, signature, arguments):
        address, many, _ = arguments
        return load_some(builder, address, many, llvm_type(vector))

    return vector(types.int64, types.int64, like), codegen


@intrinsic
def store(typingctx, address, value):
    """Writes a register to ``address`` (any alignment)."""

    def codegen(context, builder, signature, arguments):
        pointer = _pointer(builder, arguments[0], llvm_type(value))
        builder.store(arguments[1], pointer, align=value.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic
def store_first(typingctx, address, value, count):
    """Writes the first ``count`` lanes to ``address`` and nothing beyond."""

    def codegen(context, builder, signature, arguments):
        address, register, many = arguments
        store_some(builder, address, register, many)
        return context.get_dummy_value()

    return types.void(types.int64, value, types.int64), codegen


@intrinsic
def broadcast(typingctx, scalar):
    """A scalar in every lane."""
    vector = vector_of(scalar)

    def codegen(context, builder, signature, arguments):
        return splat(builder, arguments[0], vector.count)

    return vector(scalar), codegen


@intrinsic
def keep(typingctx, condition, a):
    """``a`` where the scalar ``condition`` holds, else zeros: a mask, not a branch."""

    def codegen(context, builder, signature, arguments):
        shape = llvm_type(a)
        mask = splat(builder, arguments[0], a.count)
        return builder.select(mask, arguments[1], ir.Constant(shape, [0.0] * a.count))

    return a(types.boolean, a), codegen


@intrinsic
def number(typingctx, value, like):
    """A scalar of ``like``'s type. (Numba widens float32 to float64 where an integer meets it.)"""

    def codegen(context, builder, signature, arguments):
        return context.cast(builder, arguments[0], value, like)

    return like(value, like), codegen


@intrinsic
def quotient(typingctx, a, b):
    """a / b lane by lane."""

    def codegen(context, builder, signature, arguments):
        return builder.fdiv(*arguments)

    return a(a, b), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """``a * b + c`` lane by lane: rounded once, where the machine does that."""

    def codegen(context, builder, signature, arguments):
        return multiply_add(builder, *arguments)

    return a(a, b, c), codegen


@intrinsic
def floor(typingctx, a):
    """The largest whole number not above each lane."""

    def codegen(context, builder, signature, arguments):
        return call(builder, f"llvm.floor.{_suffix(a)}", llvm_type(a), arguments)

    return a(a), codegen


@intrinsic
def nearest(typingctx, a):
    """The nearest whole number of each lane; of two, the even one."""

    def codegen(context, builder, signature, arguments):
        return call(builder, f"llvm.rint.{_suffix(a)}", llvm_type(a), arguments)

    return a(a), codegen


@intrinsic
def magnitude(typingctx, a):
    """|a| lane by lane."""

    def codegen(context, builder, signature, arguments):
        return call(builder, f"llvm.fabs.{_suffix(a)}", llvm_type(a), arguments)

    return a(a), codegen


@intrinsic
def negative(typingctx, a):
    """-a lane by lane, of zeros as well."""

    def codegen(context, builder, signature, arguments):
        return builder.fneg(*arguments)

    return a(a), codegen


@intrinsic
def root(typingctx, a):
    """√a lane by lane."""

    def codegen(context, builder, signature, arguments):
        return call(builder, f"llvm.sqrt.{_suffix(a)}", llvm_type(a), arguments)

    return a(a), codegen


def _selection(name: str, doc: str):
    @intrinsic
    def operation(typingctx, a, b):
        def codegen(context, builder, signature, arguments):
            return call(builder, f"llvm.{name}.{_suffix(a)}", llvm_type(a), arguments)

        return a(a, b), codegen

    operation.__doc__ = doc
    return operation


smaller = _selection("minnum", "The smaller of a and b, lane by lane.")
larger = _selection("maxnum", "The larger of a and b, lane by lane.")


def _binary(instruction: str, doc: str):
    @intrinsic
    def operation(typingctx, a, b):
        def codegen(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments)

        return a(a, b), codegen

    operation.__doc__ = doc
    return operation


_add = _binary("fadd", "a + b")
_sub = _binary("fsub", "a - b")
_mul = _binary("fmul", "a * b")
_and = _binary("and_", "a & b")
_or = _binary("or_", "a | b")


def _operator(symbol, operation) -> None:
    @overload(symbol)
    def implementation(a, b):
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: operation(a, b)


_operator(operator.add, _add)
_operator(operator.sub, _sub)
_operator(operator.mul, _mul)
_operator(operator.and_, _and)
_operator(operator.or_, _or)


@intrinsic
def less(typingctx, a, b):
    """The mask of the lanes where ``a < b`` (floats, or unsigned integers)."""
    mask = Vector(types.boolean, a.count)

    def codegen(context, builder, signature, arguments):
        if isinstance(a.dtype, types.Integer):
            return builder.icmp_unsigned("<", *arguments)
        return builder.fcmp_ordered("<", *arguments)

    return mask(a, b), codegen


def _comparison(compare: str, sign: str):
    """The mask of the lanes of floats that compare so, by a method of llvmlite's builder."""

    @intrinsic
    def compared(typingctx, a, b):
        mask = Vector(types.boolean, a.count)

        def codegen(context, builder, signature, arguments):
            return getattr(builder, compare)(sign, *arguments)

        return mask(a, b), codegen

    return compared


at_most = _comparison("fcmp_ordered", "<=")
equal = _comparison("fcmp_ordered", "==")
unequal = _comparison("fcmp_unordered", "!=")  # of NaN as well


@intrinsic
def inverted(typingctx, mask):
    """The lanes that a mask has not."""

    def codegen(context, builder, signature, arguments):
        return builder.not_(*arguments)

    return mask(mask), codegen


@intrinsic
def choose(typingctx, mask, a, b):
    """``a`` in the lanes of ``mask``, ``b`` elsewhere."""

    def codegen(context, builder, signature, arguments):
        return builder.select(*arguments)

    return a(mask, a, b), codegen


@intrinsic
def first(typingctx, count, like):
    """The mask of the first ``count`` lanes of a vector of ``like``."""
    mask = Vector(types.boolean, vector_of(like).count)

    def codegen(context, builder, signature, arguments):
        return first_lanes(builder, arguments[0], mask.count)

    return mask(types.int64, like), codegen


@intrinsic
def bits(typingctx, mask):
    """A mask as an integer, lane 0 in the lowest bit."""

    def codegen(context, builder, signature, arguments):
        whole = builder.bitcast(arguments[0], ir.IntType(mask.count))
        return builder.zext(whole, ir.IntType(64))

    return types.int64(mask), codegen


@intrinsic
def count_bits(typingctx, value):
    """How many bits of an integer are set."""

    def codegen(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), codegen


@intrinsic
def to_uint32(typingctx, a):
    """Whole numbers held as floats, as unsigned 32-bit integers."""
    vector = Vector(types.uint32, a.count)

    def codegen(context, builder, signature, arguments):
        return builder.fptoui(arguments[0], llvm_type(vector))

    return vector(a), codegen


@intrinsic
def small_uint32(typingctx, a):
    """``to_uint32`` of numbers below 2³¹: one instruction where unsigned ones take several."""
    vector = Vector(types.uint32, a.count)

    def codegen(context, builder, signature, arguments):
        return builder.fptosi(arguments[0], llvm_type(vector))

    return vector(a), codegen


@intrinsic
def shifted(typingctx, a, count):
    """Whole numbers times 2 to the ``count``, which is less than their bits."""

    def codegen(context, builder, signature, arguments):
        number, by = arguments
        by = builder.trunc(by, llvm_type(a).element)
        return builder.shl(number, splat(builder, by, a.count))

    return a(a, count), codegen


@intrinsic
def offset(typingctx, a, b):
    """``a - b`` of uint32, as float32: with a sign, since whole numbers wrap around."""
    vector = Vector(types.float32, a.count)

    def codegen(context, builder, signature, arguments):
        return builder.sitofp(builder.sub(*arguments), llvm_type(vector))

    return vector(a, b), codegen


@intrinsic
def counting(typingctx, start):
    """``start``, ``start + 1``, … in the lanes."""
    vector = vector_of(start)

    def codegen(context, builder, signature, arguments):
        steps = ir.Constant(llvm_type(vector), list(range(vector.count)))
        return builder.add(splat(builder, arguments[0], vector.count), steps)

    return vector(start), codegen


@intrinsic
def one_more(typingctx, a, mask):
    """Whole numbers, and one more in the lanes of ``mask``."""

    def codegen(context, builder, signature, arguments):
        return builder.add(arguments[0], builder.zext(arguments[1], llvm_type(a)))

    return a(a, mask), codegen


@intrinsic
def resize(typingctx, address, size):
    """C's ``realloc``: a kernel's own memory, for results whose size is not known beforehand.

    Null where there is none left: the old memory is then still there.
    """

    def codegen(context, builder, signature, arguments):
        raw = ir.IntType(8).as_pointer()
        shape = ir.FunctionType(raw, [raw, ir.IntType(64)])
        function = cgutils.get_or_insert_function(builder.module, shape, "realloc")
        old = builder.inttoptr(arguments[0], raw)
        return builder.ptrtoint(builder.call(function, [old, arguments[1]]), ir.IntType(64))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def release(typingctx, address):
    """C's ``free``."""

    def codegen(context, builder, signature, arguments):
        raw = ir.IntType(8).as_pointer()
        shape = ir.FunctionType(ir.VoidType(), [raw])
        function = cgutils.get_or_insert_function(builder.module, shape, "free")
        builder.call(function, [builder.inttoptr(arguments[0], raw)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def peek(typingctx, address, like):
    """The scalar of ``like``'s type at ``address``."""

    def codegen(context, builder, signature, arguments):
        return builder.load(_pointer(builder, arguments[0], _element(like)))

    return like(types.int64, like), codegen


@intrinsic
def poke(typingctx, address, value):
    """Writes a scalar to ``address``."""

    def codegen(context, builder, signature, arguments):
        builder.store(arguments[1], _pointer(builder, arguments[0], _element(value)))
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen
