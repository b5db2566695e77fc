"""What int8 or bf16 costs an accelerated model in accuracy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class QuantisationCost:
    """How far a model is from the same model in float32, on calibration data or the example."""

    samples: int
    error: float  # of the first result: √(Σ (this - float32)² / Σ float32²)
    agreement: float | None  # share of the samples (or pixels) whose best class is the same
    accuracy: tuple[float, float] | None  # share of the labels met: in float32, in this precision
    precision: str = "int8"
    data: str = "calibration"  # of which the samples are

    def __str__(self) -> str:
        samples = f"{self.samples} {self.data} sample{'s' * (self.samples != 1)}"
        lines = [f"{self.precision} on {samples}: relative error {self.error:.2%}"]
        if self.agreement is not None:
            lines.append(f"same best class for {self.agreement:.1%}")
        if self.accuracy is not None:
            before, after = self.accuracy
            lines.append(f"accuracy {before:.1%} in float32, {after:.1%} in {self.precision}")
        return ", ".join(lines)

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> QuantisationCost:
        """The inverse of ``as_plain``, from JSON."""
        accuracy = plain["accuracy"]
        return cls(**{**plain, "accuracy": None if accuracy is None else tuple(accuracy)})
