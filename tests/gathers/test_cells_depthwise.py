"""The depthwise gather on a cloud: result, adjoint and its own weights' gradient, by the oracle."""

from __future__ import annotations

import numpy as np
import oracle
import torch
from cases import each, named

from pointwise.operators import cells as operators


@each()
def test_gather_is_the_oracle(case, poisoned):
    features, weight, neighborhood = case.features(), case.depthwise_weight(), case.neighborhood()
    table = (neighborhood.row_start, neighborhood.pairs)
    found = operators._depthwise_cpu(features, weight, *table, None, None, case.mean)
    expected = oracle.depthwise(features.numpy(), case.table, case.rows, weight.numpy(), case.mean)
    oracle.assert_close(found.numpy(), expected, case.terms, what="A")


@each()
def test_adjoints_are_the_oracle(case, poisoned):
    features, weight, neighborhood = case.features(), case.depthwise_weight(), case.neighborhood()
    a = case.gradient(case.channels[0])
    table, back = (neighborhood.row_start, neighborhood.pairs), neighborhood.backward_table()
    args = (a, weight, *table, *back, case.mean, len(features))
    d_features = operators._depthwise_grad_input_cpu(*args).numpy()
    d_weight = operators._depthwise_grad_weight_cpu(a, features, weight, *table, case.mean).numpy()
    expected = oracle.depthwise_gradients(
        a.numpy(), features.numpy(), case.table, weight.numpy(), case.mean
    )
    oracle.assert_close(d_features, expected[0], case.terms, what="Gᵀa")
    oracle.assert_close(d_weight, expected[1], case.terms + case.rows, what="weight gradient")
    # ⟨G(x, w), a⟩ = ⟨x, Gᵀa⟩ = ⟨w, dw⟩: the gather is linear in both.
    y = operators._depthwise_cpu(features, weight, *table, None, None, case.mean)
    sums = [
        float((y.double() * a.double()).sum()),
        float((features.double().numpy() * d_features).sum()),
        float((weight.double().numpy() * d_weight).sum()),
    ]
    size = np.abs(a.double().numpy()).sum() * max(1.0, float(y.abs().max()) if y.numel() else 0.0)
    allowed = oracle.TOLERANCE * torch.finfo(case.dtype).eps * size * np.sqrt(case.terms)
    assert max(sums) - min(sums) <= allowed


@each(named("UTM", "negative", "batch"))
def test_the_table_read_mirrored_is_the_transposed_table(case):
    neighborhood = case.neighborhood()
    assert bool(neighborhood.symmetric)
    table = (neighborhood.row_start, neighborhood.pairs)
    weight, grad = case.depthwise_weight(), case.gradient(case.channels[0])
    whole, mirrored = (
        operators._depthwise_grad_input_cpu(grad, weight, *table, *back, case.mean, case.rows)
        for back in (neighborhood.transposed, (None, None))
    )
    oracle.assert_close(mirrored.numpy(), whole.double().numpy(), case.terms)
