"""LLVM's loops and cases, for kernels that are emitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

_I64 = ir.IntType(64)


def repeat(builder, times, start: Sequence, body: Callable) -> list:
    """``state = body(*state)``, ``times`` times from ``start`` on; returns the last state."""
    before = builder.block
    loop = builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", times, _I64(0)), loop, done)
    builder.position_at_end(loop)
    number = builder.phi(_I64)
    state = [builder.phi(value.type) for value in start]
    results = list(body(*state))
    after = builder.add(number, _I64(1))
    end = builder.block
    number.add_incoming(_I64(0), before)
    number.add_incoming(after, end)
    for phi, value, result in zip(state, start, results, strict=True):
        phi.add_incoming(value, before)
        phi.add_incoming(result, end)
    builder.cbranch(builder.icmp_signed("<", after, times), loop, done)
    builder.position_at_end(done)
    return _merged(builder, before, start, end, results)


def chosen(builder, condition, first: Callable, second: Callable) -> list:
    """The values of ``first()`` where the condition holds, else those of ``second()``."""
    blocks, values = [], []
    begin = builder.block
    done = builder.append_basic_block("chosen")
    for case in (first, second):
        blocks.append(builder.append_basic_block("case"))
        builder.position_at_end(blocks[-1])
        values.append((list(case()), builder.block))
        builder.branch(done)
    builder.position_at_end(begin)
    builder.cbranch(condition, *blocks)
    builder.position_at_end(done)
    (ones, one_end), (others, other_end) = values
    return _merged(builder, one_end, ones, other_end, others)


def _merged(builder, one_end, ones: Sequence, other_end, others: Sequence) -> list:
    merged = []
    for one, other in zip(ones, others, strict=True):
        phi = builder.phi(one.type)
        phi.add_incoming(one, one_end)
        phi.add_incoming(other, other_end)
        merged.append(phi)
    return merged
