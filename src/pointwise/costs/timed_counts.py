"""Which counts belong to which times: layers that ran as one are counted as one."""

from __future__ import annotations

from pointwise.costs import work_kinds
from pointwise.costs.clock import FusedLaunch, Key
from pointwise.costs.convolutions import join
from pointwise.costs.count import Count, total
from pointwise.costs.layer import Layer
from pointwise.costs.measure import ModuleTimes
from pointwise.costs.network import Cost

BETWEEN = "(between layers)"
"""The row for time in modules that compute nothing themselves."""

Grouped = dict[Key, tuple[Count, dict[str, Count]]]


def counts_of_parts(counted: Cost, times: ModuleTimes) -> Grouped:
    """For every part that was timed, the layers that ran in it: their count, whole and by kind."""
    layers = {layer.path: layer for layer in counted.layers}
    found: dict[Key, dict[str, Count]] = {key: {} for key in times.parts}
    taken: dict[
        str, dict[str, Count]
    ] = {}  # what launches did that was counted in the module around them
    for key, launch in times.launches.items():
        found[key] = _of_launch(launch, layers, taken)
        for path in (*launch.convolutions, *launch.norms):
            layers.pop(path, None)
    alone = {key[0] for key in times.parts if key not in times.launches}
    for path, layer in layers.items():
        own = _without(layer, taken)
        if own:
            _into(found.setdefault((_around(path, alone),), {}), own)
    kept = {key: (total(parts.values()), parts) for key, parts in found.items() if parts}
    idle = [key[0] for key, parts in found.items() if not parts]
    if idle:
        between = (BETWEEN, *idle)
        kept[between] = (Count(), {})
    return kept


def _around(path: str, timed: set[str]) -> str:
    """The innermost timed module around a module, or the module itself."""
    while path and path not in timed:
        path = path.rpartition(".")[0]
    return path


def _into(parts: dict[str, Count], more: dict[str, Count]) -> None:
    for kind, count in more.items():
        parts[kind] = parts.get(kind, Count()) + count


def _of_launch(
    launch: FusedLaunch, layers: dict[str, Layer], taken: dict[str, dict[str, Count]]
) -> dict[str, Count]:
    """The work of a fused launch: convolutions with norms folded and activations in the epilogue.

    What the module around them was counted for (activations, a residual) goes to ``taken``.
    """
    found: dict[str, Count] = {}
    works = [layers[path] for path in launch.convolutions if path in layers]
    counts = [layer.count for layer in works]
    for layer, count in zip(works, join(*counts), strict=True):
        _into(found, {layer.kind: count})
    for path in launch.norms:
        if path in layers:
            _into(found, {work_kinds.NORM: Count(parameters=layers[path].count.parameters)})
    for layer, count in zip(works, counts, strict=True):
        around = taken.setdefault(layer.path.rpartition(".")[0], {})
        numbers, size = count.outputs, count.bytes_written
        if layer.path in launch.activated:
            _into(found, {work_kinds.ACTIVATION: Count(others=numbers)})
            apart = Count(others=numbers, outputs=numbers, bytes_read=size, bytes_written=size)
            _into(around, {work_kinds.ACTIVATION: apart})
        if launch.residual and layer is works[-1]:
            _into(found, {work_kinds.ELEMENTWISE: Count(additions=numbers, bytes_read=size)})
            apart = Count(
                additions=numbers, outputs=numbers, bytes_read=2 * size, bytes_written=size
            )
            _into(around, {work_kinds.ELEMENTWISE: apart})
    return found


def _without(layer: Layer, taken: dict[str, dict[str, Count]]) -> dict[str, Count]:
    """The work of a layer without the activations and residuals that launches have done for it."""
    left = dict(layer.parts)
    for kind, count in taken.get(layer.path, {}).items():
        if kind in left:
            rest = left.pop(kind) - count
            if rest.outputs > 0 or rest.parameters:
                left[kind] = rest
    return left
