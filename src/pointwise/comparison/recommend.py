"""Which of the compared convolutions to take, and why.

Whatever else it costs, what stands in for a standard convolution has to do two things: mix all
channels, and see neighbours. Of those kinds, without a budget the fastest is recommended; with one,
that which has most weights to learn with among those that keep to it; and of two that are as fast,
too, since nothing is gained by having fewer. How well each learns is not
measured here: docs/which.md shows that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pointwise.comparison.budget import TIME, Budget
from pointwise.comparison.compared import OURS, Comparison, VariantResult
from pointwise.costs.tables import milliseconds, short
from pointwise.timing import BUSY, FEWEST, ratio

MIXES = {
    "standard": "all channels",
    "separable": "all channels",
    "shift": "all channels",
    "bottleneck": "all channels",
    "inverted residual": "all channels",
    "pointwise": "all channels",
    "grouped": "the channels of a group only",
    "depthwise": "no channels",
}
"""What each kind mixes; the first six, all of them."""
SEES = {
    "standard": "every channel's {k}×{k} neighbours",
    "separable": "every channel's {k}×{k} neighbours, through one filter each",
    "shift": "one of the {k}×{k} neighbours in each channel",
    "bottleneck": "{k}×{k} neighbours in a quarter of the channels",
    "inverted residual": "{k}×{k} neighbours in more channels than it is given",
    "pointwise": "no neighbours",
    "grouped": "{k}×{k} neighbours",
    "depthwise": "{k}×{k} neighbours",
}
_PARTS = {
    "pointwise": "sees no neighbours",
    "grouped": "mixes within groups only",
    "depthwise": "mixes no channels",
}
"""The kinds that do a part of the job, and what they leave out."""


@dataclass(frozen=True)
class Recommendation:
    """A kind and the reasons for it; ``kind`` is None where none can be recommended."""

    kind: str | None
    reasons: tuple[str, ...]

    def lines(self) -> list[str]:
        head = f"Recommended: {self.kind}" if self.kind else "No recommendation"
        return [head, *(f"  {reason}" for reason in self.reasons)]

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "reasons": list(self.reasons)}


def recommend(found: Comparison, budgets: Sequence[Budget] = ()) -> Recommendation:
    """What to take for a job, of what was compared."""
    needs_clock = not budgets or any(budget.of == TIME for budget in budgets)
    if found.busy and needs_clock:
        return Recommendation(None, (f"{BUSY}, and its times decide nothing: {found.busy}",))
    rounds = min(len(row.forward[OURS].by_round()) for row in found.rows)
    if not budgets and rounds < FEWEST:
        few = f"{rounds} round{'s' * (rounds > 1)} cannot tell which is the fastest; {FEWEST} can"
        return Recommendation(None, (few,))
    whole = [row for row in found.rows if row.kind not in _parts(found)]
    allowed = [row for row in whole if all(each.allows(row, found) for each in budgets)]
    if not allowed:
        return Recommendation(None, tuple(_nothing(found, whole, budgets)))
    chosen = max(allowed, key=_weights) if budgets else fastest(allowed)
    return Recommendation(chosen.kind, tuple(_reasons(found, chosen, allowed, whole, budgets)))


def fastest(rows: Sequence[VariantResult]) -> VariantResult:
    """The one with the least median; of those that cannot be told from it, most weights."""
    first = min(rows, key=lambda row: row.forward[OURS].median)
    near = [row for row in rows if row is first or not _slower(row, first)]
    return max(near, key=_weights)


def _slower(row: VariantResult, other: VariantResult) -> bool:
    return ratio(row.forward[OURS], other.forward[OURS]).is_above


def _weights(row: VariantResult) -> int:
    return row.parameters


def _reasons(
    found: Comparison,
    chosen: VariantResult,
    allowed: Sequence[VariantResult],
    whole: Sequence[VariantResult],
    budgets: Sequence[Budget],
) -> Iterable[str]:
    yield f"mixes {MIXES[chosen.kind]}, {_sees(found, chosen.kind)}"
    yield _counts(found, chosen)
    if not found.busy:
        yield _clock(found, chosen)
    if budgets:
        within = " and ".join(budget.words(found) for budget in budgets)
        most = "; of all that do, it has most weights to learn with" * (len(allowed) > 1)
        yield f"keeps to {within}{most}"
        outside = [_with_amount(row, budgets, found) for row in whole if row not in allowed]
        if outside:
            yield f"beyond the budget: {', '.join(outside)}"
    else:
        yield from _equals(chosen, allowed)
    left_out = _parts(found)
    parts = [f"{row.kind} {left_out[row.kind]}" for row in found.rows if row.kind in left_out]
    if parts:
        yield f"a part of the job only: {', '.join(parts)}"


def _parts(found: Comparison) -> dict[str, str]:
    """Who does a part of the job; with a kernel of 1×1 there are no neighbours to see."""
    if found.job.kernel > 1:
        return _PARTS
    return {kind: why for kind, why in _PARTS.items() if kind != "pointwise"}


def _sees(found: Comparison, kind: str) -> str:
    kernel = found.job.kernel
    return f"sees {SEES[kind].format(k=kernel)}" if kernel > 1 else "and sees one pixel at a time"


def _counts(found: Comparison, chosen: VariantResult) -> str:
    standard = found.row("standard")
    own = f"{short(chosen.parameters)} parameters"
    if chosen is standard:
        return own
    return f"{own}, where the standard one has {short(standard.parameters)}"


def _clock(found: Comparison, chosen: VariantResult) -> str:
    took = f"{milliseconds(chosen.forward[OURS].median)} ms"
    gain = found.by_clock(chosen)
    if chosen.kind == "standard":
        return took
    if gain.is_above:
        return f"{took}: {gain} times as fast as the standard one"
    if gain.is_below:
        return f"{took}: {gain.inverse()} times as long as the standard one"
    return f"{took}: as long as the standard one, as far as could be measured"


def _equals(chosen: VariantResult, allowed: Sequence[VariantResult]) -> Iterable[str]:
    near = [
        row.kind
        for row in allowed
        if row is not chosen and not _slower(row, chosen) and not _slower(chosen, row)
    ]
    if near:
        verb = "is" if len(near) == 1 else "are"
        yield (
            f"{' and '.join(near)} {verb} as fast, as far as could be measured, with fewer weights"
        )
    yield "the fastest here that does both; with --budget, the one with most weights within it"


def _nothing(
    found: Comparison, whole: Sequence[VariantResult], budgets: Sequence[Budget]
) -> Iterable[str]:
    """Why nothing keeps to the budgets, and what comes nearest to each."""
    for budget in budgets:
        least = min(whole, key=budget.taken)
        if not budget.allows(least, found):
            yield (
                f"nothing that mixes all channels and sees neighbours keeps to"
                f" {budget.words(found)}; {least.kind} comes nearest, with"
                f" {budget.said(budget.taken(least))}"
            )
            return
    words = " and ".join(budget.words(found) for budget in budgets)
    yield f"each of {words} can be kept to, but not all by one kind"


def _with_amount(row: VariantResult, budgets: Sequence[Budget], found: Comparison) -> str:
    broken = next(budget for budget in budgets if not budget.allows(row, found))
    return f"{row.kind} ({broken.said(broken.taken(row))})"
