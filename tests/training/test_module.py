from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from toys import TinyPoints

from pointwise.training.data import CloudBatch
from pointwise.training.lovasz import lovasz_softmax
from pointwise.training.module import PATIENCE_FOR_NAN, TrainingModule, rate


def module(**more) -> TrainingModule:
    return TrainingModule(TinyPoints(2, 3, 1.0), 3, progress=lambda: 0.0, **more)


def batch(labels: list[int], value: float = 1.0) -> CloudBatch:
    count = len(labels)
    features = torch.arange(2.0 * count).reshape(count, 2) * value
    return CloudBatch(
        torch.zeros(count, 3), features, torch.tensor([0, count]), torch.tensor(labels)
    )


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.05}])
def test_rows_without_a_label_do_not_count(options):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with_more = torch.cat([logits, torch.full((2, 3), 1e3)])
    labels = torch.tensor([0, 1, 2, 1, -1, -1])
    one = module(weights=[1.0, 2.0, 3.0], **options)
    expected = functional.cross_entropy(
        logits, labels[:4], weight=torch.tensor([1.0, 2.0, 3.0]), **options
    )
    torch.testing.assert_close(one.loss(with_more, labels), expected)


def test_a_batch_without_labels_is_passed_over():
    assert module().training_step(batch([-1, -1]), 0) is None


def test_lasting_nan_ends_the_training():
    one = module(learning_rate=0.7)
    bad = batch([0, 1], float("nan"))
    for _ in range(PATIENCE_FOR_NAN - 1):
        assert one.training_step(bad, 0) is None
    with pytest.raises(
        ValueError, match=r"loss was nan in 5 batches.*--learning-rate, which is 0.7"
    ):
        one.training_step(bad, 0)


def test_one_nan_is_forgiven(monkeypatch):
    one = module()
    monkeypatch.setattr(one, "log", lambda *_, **__: None)
    for _ in range(2 * PATIENCE_FOR_NAN):
        assert one.training_step(batch([0, 1], float("nan")), 0) is None
        assert one.training_step(batch([0, 1]), 0) is not None


def test_the_rate_rises_and_falls_to_zero():
    rates = [rate(i / 1000) for i in range(1001)]
    assert rates[0] == 0.05
    assert max(rates) == pytest.approx(1, abs=1e-3)
    peak = rates.index(max(rates))
    assert peak == 50
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rate(1.5) == pytest.approx(0, abs=1e-9)


def test_the_average_follows_the_weights_smoothly():
    one = module(decay=0.9)
    weight = one.network.layers[0].weight
    with torch.no_grad():
        weight.fill_(0.0)
    one.on_train_batch_end()
    assert (one.average.module.layers[0].weight == 0).all()  # the first is taken as it is
    with torch.no_grad():
        weight.fill_(1.0)
    one.on_train_batch_end()
    averaged = one.average.module.layers[0].weight
    torch.testing.assert_close(averaged, torch.full_like(averaged, 9 / 11))  # short at first
    for _ in range(100):
        one.on_train_batch_end()
    assert 0.99 < averaged.min() < 1
    one.network.layers[1].num_batches_tracked.fill_(7)
    one.on_train_batch_end()
    assert one.average.module.layers[1].num_batches_tracked == 7


def test_overlap_is_of_rows_with_a_label():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [9.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, -1])
    both = module(overlap=True).loss(logits, labels)
    entropy = module().loss(logits, labels)
    assert torch.allclose(both - entropy, lovasz_softmax(logits[:2], labels[:2]))
    assert module(overlap=True).loss(logits, torch.full((3,), -1)).isnan()
