"""Named argument tables: what a kernel is told, by name in Python and by name in the kernel.

A kernel gets the address of a table of int64: addresses, sizes, and floats as a float64's bits.
A ``Layout`` is the names of its entries, and serves both sides::

    WINDOW = Layout("Window", "pixel channels height width")
    SCALE = Layout("Scale", "*x *out *scratch rows low:real", window=WINDOW)

    arguments = SCALE(x=x, out=out, scratch=None, rows=5, low=0.0, window=WINDOW(pixel=64, …))

    @device
    def scale(arguments, program, thread, like):
        own = SCALE(arguments)  # a named tuple
        own.x + program * own.window.pixel

``*name`` is an address: it is given as a tensor, an array, other ``Arguments`` (a table inside a
table), or None, which is 0. ``name:real`` is a float. All else is a whole number. A layout is put
together from others by name, so that nobody counts another one's entries; in a kernel a part is a
named tuple of its own, and is what functions take that need that part only. What a kernel does not
use of a table is not loaded.
"""

from __future__ import annotations

import struct
from array import array
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import infer, infer_global, make_intrinsic_template

_I64, _F64 = ir.IntType(64), ir.DoubleType()
_pack, _unpack = struct.Struct("<d").pack, struct.Struct("<q").unpack


def _bits(value: float) -> int:
    """A float64 as the int64 that a table holds."""
    return _unpack(_pack(value))[0]


def _address(operand: Any) -> int:
    """Where an operand lies: of a tensor, an array, or another table; 0 for None."""
    if operand is None:
        return 0
    if isinstance(operand, Arguments):
        return operand.address
    found = getattr(operand, "data_ptr", None)
    return operand.ctypes.data if found is None else found()


class Arguments:
    """The entries of one table, and the operands that its addresses are of, which it keeps alive.

    To be kept while a kernel runs.
    """

    __slots__ = ("_table", "entries", "layout", "operands")

    def __init__(self, layout: Layout, entries: list[int], operands: tuple) -> None:
        self.layout, self.entries, self.operands = layout, entries, operands
        self._table: array | None = None

    def __iter__(self) -> Iterator[int]:
        return iter(self.entries)

    @property
    def table(self) -> array:
        """The entries in memory, from the first time on that somebody asks."""
        if self._table is None:
            self._table = array("q", self.entries)
        return self._table

    @property
    def address(self) -> int:
        return self.table.buffer_info()[0]

    def patch(self, **operands: Any) -> None:
        """Puts other operands in the place of named ones of this layout (not of its parts)."""
        kept = dict(zip(self.layout.pointers, self.operands, strict=True))
        for name, operand in operands.items():
            kept[name] = operand
            place, entry = self.layout.places[name], _address(operand)
            self.entries[place] = entry
            if self._table is not None:
                self._table[place] = entry
        self.operands = tuple(kept.values())

    def get(self, name: str) -> Any:
        """The operand that was given by this name."""
        return self.operands[self.layout.pointers.index(name)]

    def addresses(self) -> Iterator[tuple[int, Any]]:
        """(place, operand) of every entry that is an address, those of the parts included."""
        first = len(self.layout.fields)
        for name, operand in zip(self.layout.pointers, self.operands, strict=True):
            if name in self.layout.parts:
                yield from ((first + place, own) for place, own in operand.addresses())
                first += operand.layout.size
            elif operand is not None:
                yield self.layout.places[name], operand


class Layout:
    """The names of a table's entries in order: those of ``names``, then those of the ``parts``.

    Called in Python with a value for each name it makes ``Arguments``; called in a kernel with an
    address it makes a named tuple of the table's entries there.
    """

    def __init__(self, name: str, names: str = "", **parts: Layout) -> None:
        fields: list[tuple[str, str]] = []
        for field in names.split():
            if field.startswith("*"):
                fields.append((field[1:], "address"))
            else:
                plain, _, kind = field.partition(":")
                fields.append((plain, kind or "number"))
        named = [field for field, _ in fields] + list(parts)
        if doubled := sorted({field for field in named if named.count(field) > 1}):
            raise ValueError(f"layout {name}: {', '.join(doubled)} more than once")
        if unknown := sorted({kind for _, kind in fields} - {"address", "number", "real"}):
            raise ValueError(f"layout {name}: an entry is a number or a real, not {unknown[0]!r}")
        self.name, self.parts = name, parts
        self.fields = fields
        self.places = {field: place for place, (field, _) in enumerate(fields)}
        self.pointers = tuple(field for field, kind in fields if kind == "address") + tuple(parts)
        self.size: int = len(fields) + sum(part.size for part in parts.values())
        self.tuple: Any = namedtuple(name, [*self.places, *parts])  # type: ignore[misc]
        self._write = self._writer()
        self._register()

    def __call__(self, *address: int, **values: Any) -> Any:
        return self._write(*address, **values)

    def _writer(self) -> Any:
        """A function with the names as its parameters: Python itself says which one is missing."""
        said = {
            "address": "0 if {0} is None else at({0})",
            "real": "bits({0})",
            "number": "{0}",
        }
        entries = [said[kind].format(field) for field, kind in self.fields]
        entries += [f"*{part}.entries" for part in self.parts]
        names = ", ".join(self.tuple._fields)
        operands = "".join(f"{operand}, " for operand in self.pointers)
        source = f"lambda *, {names}: Arguments(layout, [{', '.join(entries)}], ({operands}))"
        return eval(source, {"Arguments": Arguments, "layout": self, "at": _address, "bits": _bits})

    # --- in kernels ---

    def _register(self) -> None:
        """Makes the layout known to Numba as a function of an address."""

        def definition(typingctx, address):
            def codegen(context, builder, signature, values):
                return self._load(context, builder, values[0], 0)

            return self._type()(types.int64), codegen

        template = make_intrinsic_template(self, definition, self.name, prefer_literal=False)
        infer(template)
        infer_global(self, types.Function(template))

    def _type(self) -> types.NamedTuple:
        own = [types.float64 if kind == "real" else types.int64 for _, kind in self.fields]
        return types.NamedTuple([*own, *(part._type() for part in self.parts.values())], self.tuple)

    def _load(self, context, builder, address, first: int):
        values = []
        for place, (_, kind) in enumerate(self.fields):
            shape = _F64 if kind == "real" else _I64
            pointer = builder.inttoptr(address, shape.as_pointer())
            values.append(builder.load(builder.gep(pointer, [_I64(first + place)])))
        first += len(self.fields)
        for part in self.parts.values():
            values.append(part._load(context, builder, address, first))
            first += part.size
        return context.make_tuple(builder, self._type(), values)
