"""The Lovász-Softmax loss: the IoU where predictions are sure, and what lies between."""

from __future__ import annotations

import itertools

import pytest
import torch

from pointwise.training import lovasz
from pointwise.training.lovasz import lovasz_softmax


def sure(predicted: torch.Tensor, classes: int) -> torch.Tensor:
    return 100.0 * torch.nn.functional.one_hot(predicted, classes).double()


@pytest.mark.parametrize("seed", range(3))
def test_sure_predictions_cost_their_iou(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (50,), generator=generator)
    predicted = torch.where(
        torch.rand(50, generator=generator) < 0.6,
        labels,
        torch.randint(0, 5, (50,), generator=generator),
    )
    ious = []
    for c in labels.unique().tolist():
        both, either = (predicted == c) & (labels == c), (predicted == c) | (labels == c)
        ious.append(both.sum() / either.sum())
    expected = 1 - torch.stack(ious).double().mean()
    assert torch.allclose(lovasz_softmax(sure(predicted, 5), labels), expected, atol=1e-6)


def test_between_it_is_the_lovasz_extension():
    """Of two classes, by its definition: the largest sum over all orders of the rows, as the loss
    of a set of mistakes is submodular."""
    logits = torch.tensor([[1.0, 0.3], [0.2, 0.1], [-1.0, 2.0], [0.0, 0.4]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1])

    def cost(mistakes: set[int], own: list[int]) -> float:
        union = set(own) | mistakes
        return 1 - len(set(own) - mistakes) / len(union)

    total = 0.0
    probabilities = logits.softmax(dim=1)
    for c in (0, 1):
        own = [i for i in range(4) if labels[i] == c]
        errors = [abs(float(labels[i] == c) - float(probabilities[i, c])) for i in range(4)]
        total += max(
            sum(
                errors[row] * (cost(set(order[: n + 1]), own) - cost(set(order[:n]), own))
                for n, row in enumerate(order)
            )
            for order in itertools.permutations(range(4))
        )
    assert lovasz_softmax(logits, labels).item() == pytest.approx(total / 2, abs=1e-12)


def test_gradients():
    logits = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 3, 1, 1, 3, 0, 1, 3])
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x, labels), logits.requires_grad_())
    (gradient,) = torch.autograd.grad(lovasz_softmax(logits, labels), logits)
    assert (gradient[range(9), labels] <= 0).all()  # more of the right class is never worse


def test_of_many_rows_some_are_drawn(monkeypatch):
    logits = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (5000,), generator=torch.Generator().manual_seed(1))
    whole = lovasz_softmax(logits, labels)
    monkeypatch.setattr(lovasz, "MOST", 2000)
    torch.manual_seed(0)
    drawn = [lovasz_softmax(logits, labels) for _ in range(20)]
    assert len({x.item() for x in drawn}) == 20
    assert torch.stack(drawn).mean().item() == pytest.approx(whole.item(), abs=0.005)


def test_one_class_alone():
    assert lovasz_softmax(sure(torch.zeros(3, dtype=torch.int64), 2), torch.zeros(3).long()) == 0
