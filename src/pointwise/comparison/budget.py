"""``--budget``: how much a convolution may take, of what."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pointwise.comparison.compared import OURS, Comparison, VariantResult
from pointwise.costs.tables import milliseconds, short

TIME, PARAMETERS, PRODUCTS = "time", "parameters", "multiply-adds"
EXAMPLES = "2ms, 20k-parameters, 50M-multiply-adds or 30%-time"
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
_LETTERS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_NAMES = {
    "time": TIME,
    "parameters": PARAMETERS,
    "params": PARAMETERS,
    "multiply-adds": PRODUCTS,
    "mult-adds": PRODUCTS,
    "macs": PRODUCTS,
}


@dataclass(frozen=True)
class Budget:
    """At most so much ``of`` time (milliseconds), parameters or multiply-adds.

    With ``share``, it is a share of what the standard convolution takes.
    """

    most: float
    of: str
    share: bool = False

    def limit(self, found: Comparison) -> float:
        if not self.share:
            return self.most
        return self.most * self.taken(found.row("standard"))

    def taken(self, row: VariantResult) -> float:
        """By a kind: of time the 95th percentile, since a budget is to be kept, not only mostly."""
        if self.of == TIME:
            return row.forward[OURS].p95
        return row.parameters if self.of == PARAMETERS else row.multiply_adds

    def allows(self, row: VariantResult, found: Comparison) -> bool:
        return self.taken(row) <= self.limit(found)

    def said(self, amount: float) -> str:
        """An amount in the budget's own unit."""
        if self.of == TIME:
            return f"{milliseconds(amount)} ms"
        return f"{short(amount)} {self.of}"

    def words(self, found: Comparison) -> str:
        own = self.said(self.limit(found))
        return f"{own} ({100 * self.most:g} % of the standard one's)" if self.share else own


def budget_of(text: str) -> Budget:
    """Reads ``2ms``, ``20k-parameters``, ``50M-multiply-adds`` or ``30%-time``.

    Raises ValueError for anything else.

    >>> budget_of("20k-parameters")
    Budget(most=20000.0, of='parameters', share=False)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)[\s-]*(.*?)\s*", text)
    if found is None:
        raise ValueError(
            f"compare: --budget must be a number and what it is of, such as {EXAMPLES}, got"
            f" {text!r}"
        )
    number, share, unit = float(found[1]), bool(found[2]), found[3]
    if number <= 0:
        raise ValueError(f"compare: --budget must be more than nothing, got {text!r}")
    if not share and unit in _MILLISECONDS:
        return Budget(number * _MILLISECONDS[unit], TIME)
    letter, of = _letter_and_name(unit)
    if of is None or (share and letter) or (of == TIME and not share):
        raise ValueError(
            f"compare: --budget counts milliseconds, parameters or multiply-adds, as in {EXAMPLES};"
            f" got {text!r}"
        )
    if share:
        return Budget(number / 100, of, share=True)
    return Budget(number * _LETTERS[letter], of)


def _letter_and_name(unit: str) -> tuple[str, str | None]:
    """``k`` and ``parameters`` of ``k-parameters``; no name where there is none that is known."""
    if unit.lower() in _NAMES:
        return "", _NAMES[unit.lower()]
    letter, name = unit[:1].lower(), unit[1:].lstrip(" -").lower()
    return letter, _NAMES.get(name) if letter in _LETTERS else None
