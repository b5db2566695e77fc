"""What a separation did, layer by layer and in all: counted and measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pointwise.costs.tables import short
from pointwise.timing import Ratio
from pointwise.timing.load import verdict_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Pair = tuple[float, float]  # before and after


@dataclass(frozen=True)
class SeparatedLayer:
    """A convolution: what it was, and what became of it.

    ``rank`` is None where it was left alone, and ``why`` then says why. Pairs are before and after;
    None where it was not counted or measured. ``milliseconds`` are medians, ``gain`` how many times
    as fast it is, round by round.
    ``weight_error`` is ``‖Ŵ − W‖ / ‖W‖``; ``output_error`` the root of the sum of squared errors of
    the layer's results, over that of the results' own spread about each channel's mean.
    """

    name: str
    full_rank: int
    rank: int | None = None
    why: str = ""
    parameters: Pair | None = None
    multiply_adds: Pair | None = None
    milliseconds: Pair | None = None
    gain: Ratio | None = None
    weight_error: float | None = None
    output_error: float | None = None

    @property
    def slower(self) -> bool:
        """Whether it was measured to take longer than before, beyond what chance does."""
        return self.gain is not None and self.gain.is_below


@dataclass(frozen=True)
class SeparationReport:
    """All convolutions in their order, and the whole network, before and after.

    Multiply-adds are for one image, ``milliseconds`` for a ``batch``. ``output_error`` is that of
    the network's results: ``‖ŷ − y‖ / ‖y‖``. ``busy`` says why nothing can be concluded from the
    times; it is empty where all can. ``print`` shows a table.
    """

    layers: tuple[SeparatedLayer, ...]
    parameters: Pair
    multiply_adds: Pair | None = None
    milliseconds: Pair | None = None
    gain: Ratio | None = None
    output_error: float | None = None
    batch: int = 1
    busy: str = ""

    @property
    def ranks(self) -> dict[str, int]:
        """What was separated: rank by name, as ``separate_as`` takes them."""
        return {layer.name: layer.rank for layer in self.layers if layer.rank is not None}

    @property
    def slower(self) -> tuple[SeparatedLayer, ...]:
        """What was separated, multiplies less, and takes longer all the same."""
        if self.busy:
            return ()
        return tuple(
            layer
            for layer in self.layers
            if layer.slower
            and layer.multiply_adds is not None
            and layer.multiply_adds[1] < layer.multiply_adds[0]
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: totals, and a row for each convolution."""
        totals = asdict(self)
        layers = totals.pop("layers")
        gains = [self.gain, *(layer.gain for layer in self.layers)]
        for found, gain in zip((totals, *layers), gains, strict=True):
            found["gain"] = None if gain is None else gain.record()
        return {"totals": totals, "layers": layers}

    def table(self) -> Table:
        """Everything that was separated, at most 80 columns wide."""
        from rich import box
        from rich.table import Table

        from pointwise.terminal import shown as safe

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, show_footer=True)
        table.add_column("layer", "network", overflow="fold", max_width=22)
        table.add_column("rank", justify="right", no_wrap=True)
        columns = (
            ("parameters", self.parameters, _count),
            ("multiply-adds", self.multiply_adds, _count),
            ("ms", None if self.busy else self.milliseconds, _milliseconds),
        )
        shown = [each for each in columns if each[1] is not None]
        for name, pair, form in shown:
            table.add_column(name, _change(pair, form), justify="right", no_wrap=True)
        error = "" if self.output_error is None else _percent(self.output_error)
        table.add_column("error:\nweight", "", justify="right", no_wrap=True)
        with_outputs = any(layer.output_error is not None for layer in self.layers)
        if with_outputs:
            table.add_column("\noutput", error, justify="right", no_wrap=True)
        for layer in self.layers:
            if layer.rank is None:
                continue
            pairs = (layer.parameters, layer.multiply_adds, layer.milliseconds)
            cells = [
                _change(pair, form)
                for pair, (_, whole, form) in zip(pairs, columns, strict=True)
                if whole is not None
            ]
            errors = [_percent(layer.weight_error)]
            errors += [_percent(layer.output_error)] * with_outputs
            table.add_row(
                safe(layer.name or "(itself)"),
                f"{layer.rank}/{layer.full_rank}",
                *cells,
                *errors,
                style="yellow" if layer in self.slower else "",
            )
        return table

    def remarks(self) -> Iterator[str]:
        """What the table does not say: who is slower, who was left alone, and why."""
        if self.busy:
            yield verdict_of(self.busy)
        elif self.gain is not None:
            yield from self._of_the_network(self.gain)
        if self.slower:
            yield (
                f"Slower, though the count is lower: {_names(self.slower)}. only_faster leaves"
                " such layers alone."
            )
        why: dict[str, list[SeparatedLayer]] = {}
        for layer in self.layers:
            if layer.rank is None:
                why.setdefault(layer.why, []).append(layer)
        for reason, layers in why.items():
            yield f"Left alone, {reason}: {_names(layers)}."

    def _of_the_network(self, gain: Ratio) -> Iterator[str]:
        if gain.is_above:
            yield f"The whole network is {gain} times as fast as it was."
        elif gain.is_below:
            yield f"The whole network takes {gain.inverse()} times as long as it did."
        else:
            yield f"The whole network is as fast as it was, as far as can be told ({gain} times)."

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        lines = [Text(line) for line in self.remarks()]
        if not self.ranks:
            return Group("Nothing was separated.", *lines)
        return Group(self.table(), "", *lines)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=80, highlight=False, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()


def _names(layers: Sequence[SeparatedLayer], most: int = 4) -> str:
    shown = ", ".join(layer.name or "(itself)" for layer in layers[:most])
    return shown + (f" and {len(layers) - most} more" if len(layers) > most else "")


def _change(pair: Pair | None, form) -> str:
    if pair is None:
        return ""
    before, after = pair
    return form(before) if before == after else f"{form(before)}→{form(after)}"


def _count(value: float) -> str:
    return short(value).replace(" ", "")


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.2g}%"
