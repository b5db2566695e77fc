"""Operators of a file checked against ONNX's own definitions, before they are read.

The definitions are those of the package ``onnx``, for the version that the file asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pointwise.extras import import_extra

NEWEST = 28
"""The newest version of ONNX's operators whose meaning is known here."""


def fault(node: Any, version: int) -> str | None:
    """What its definition forbids of an operator's inputs, results or attributes, if any."""
    onnx = import_extra("onnx", "bench")
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return f"is no operator of version {version}"
    if schema.since_version > NEWEST:
        return f"has another meaning since version {schema.since_version}, which is not known here"
    if schema.deprecated:
        return f"is no operator of version {version} any more"
    for given, least, most, what in (
        (node.input, schema.min_input, schema.max_input, "inputs"),
        (node.output, schema.min_output, schema.max_output, "results"),
    ):
        if not least <= len(given) <= most:
            return (
                f"has {len(given)} {what}, not {least if least == most else f'{least} to {most}'}"
            )
    left_out = _left_out(node.input, schema.inputs, onnx.defs.OpSchema.FormalParameterOption)
    return left_out or _attribute_fault(node.attribute, schema, version)


def _left_out(names: Sequence[str], formal: Sequence[Any], option: Any) -> str | None:
    for name, parameter in zip(names, formal, strict=False):
        if not name and parameter.option == option.Single:
            return f"has no input {parameter.name!r}"
    return None


def _attribute_fault(given: Sequence[Any], schema: Any, version: int) -> str | None:
    names = [part.name for part in given]
    for part in given:
        known = schema.attributes.get(part.name)
        if known is None:
            return f"has the attribute {part.name!r}, which version {version} does not know"
        if names.count(part.name) > 1:
            return f"has the attribute {part.name!r} twice"
        if part.type != known.type.value or part.ref_attr_name:
            return f"has the attribute {part.name!r} of another kind than {known.type.name}"
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in names:
            return f"has no attribute {name!r}"
    return None
