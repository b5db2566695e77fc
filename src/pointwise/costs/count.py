"""What is counted, and how counts are added."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Count:
    """What a convolution, a layer or a network costs, by its definition, whatever computes it.

    ``multiplications`` are products of two numbers, ``additions`` sums of two. A sum of K products
    takes K multiplications and K - 1 additions, and a bias one addition more. ``multiply_adds`` is
    what the literature counts: the products that are added up, K for such a sum (a MAC, half of
    what others call two FLOPs). ``others`` is everything else that is computed, such as maxima,
    exponentials and divisions: one for each number, however it is computed.

    Products with the zeros of a padding are counted, as in the literature; ``on_padding`` says how
    many of the multiply-adds they are. ``bytes_read`` and ``bytes_written`` are what each operator
    reads and writes if nothing stays in a cache between one and the next: every number of its
    inputs that matters once, and every number of its result (``outputs``) once. Where ``exact`` is
    False, the numbers are upper bounds.
    """

    parameters: int = 0
    multiplications: int = 0
    multiply_adds: int = 0
    additions: int = 0
    others: int = 0
    on_padding: int = 0
    outputs: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    exact: bool = True

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def operations(self) -> int:
        """Multiplications, additions and others: two for each multiply-add, but one for the first
        of each sum without a bias."""
        return self.multiplications + self.additions + self.others

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: operations for each byte that is read or written."""
        return self.operations / self.bytes if self.bytes else 0.0

    def __add__(self, other: Count) -> Count:
        return self._with(other, 1)

    def __sub__(self, other: Count) -> Count:
        return self._with(other, -1)

    def _with(self, other: Count, sign: int) -> Count:
        if not isinstance(other, Count):
            return NotImplemented
        numbers = {
            field.name: getattr(self, field.name) + sign * getattr(other, field.name)
            for field in fields(Count)
            if field.name != "exact"
        }
        return Count(**numbers, exact=self.exact and other.exact)

    def as_dict(self) -> dict[str, int | float | bool]:
        """All numbers by name, for JSON; the derived ones too."""
        found = {field.name: getattr(self, field.name) for field in fields(Count)}
        return {
            **found,
            "bytes": self.bytes,
            "operations": self.operations,
            "intensity": round(self.intensity, 4),
        }


def total(counts) -> Count:
    """The sum of some counts; of none, zero."""
    return sum(counts, Count())
