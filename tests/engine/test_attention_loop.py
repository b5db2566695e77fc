"""Attention of every shape and mask, against PyTorch in float64; and products of small matrices."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pointwise.engine.cpu.loops import attention, matrices

DTYPES = (torch.float32, torch.float64)

# images, heads, queries, keys, channels of queries and keys, channels of values
SHAPES = {
    "one token": (1, 1, 1, 1, 8, 8),
    "one channel": (2, 3, 5, 4, 1, 1),
    "one query": (2, 2, 1, 37, 16, 16),
    "one key": (2, 2, 37, 1, 16, 16),
    "odd sizes": (1, 3, 50, 33, 17, 9),
    "a window": (5, 3, 49, 49, 32, 32),
    "whole registers": (1, 2, 64, 64, 64, 64),
    "tiles": (1, 2, 197, 197, 64, 64),
    "narrow values": (1, 2, 30, 31, 24, 40),
    "more keys than queries": (1, 2, 20, 70, 16, 16),
    "blocks of keys": (1, 2, 45, 1000, 24, 33),
    "tiles and blocks": (1, 1, 500, 500, 16, 48),
}


def tensors(shape, dtype):
    images, heads, queries, keys, depth, columns = SHAPES[shape]
    torch.manual_seed(len(shape))
    sizes = ((queries, depth), (keys, depth), (keys, columns))
    parts = [torch.randn(images, n, heads, c, dtype=dtype).transpose(1, 2) for n, c in sizes]
    out = torch.full((images, queries, heads, columns), torch.nan, dtype=dtype).transpose(1, 2)
    return (*parts, out)


def wanted(q, k, v, terms, scale, is_causal):
    """In float64, zeros where a query sees nothing."""
    scores = q.double() @ k.double().transpose(-2, -1) * scale
    for term in terms:
        scores = scores + term.double()
    if is_causal:
        unseen = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(unseen, -math.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v.double()


def close(given, exact):
    eps = torch.finfo(given.dtype).eps
    bound = 32 * eps * exact.abs().max().item()
    torch.testing.assert_close(given.double(), exact, rtol=0, atol=bound)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, dtype, is_causal, poisoned):
    q, k, v, out = tensors(shape, dtype)
    scale = 1.3 * q.shape[-1] ** -0.5
    attention.attention(q, k, v, out, [], scale, is_causal).run()
    close(out, wanted(q, k, v, [], scale, is_causal))


def _bias(images, heads, queries, keys):
    return torch.randn(heads, queries, keys)


def _far(images, heads, queries, keys):
    """Of which no query sees the first ones."""
    mask = torch.where(torch.rand(images, 1, queries, keys) < 0.3, -math.inf, 0.0)
    mask[..., : keys * 3 // 4] = -math.inf
    mask[..., -1] = 0.0
    return mask


def _padding(images, heads, queries, keys):
    mask = torch.where(torch.rand(images, 1, 1, keys) < 0.4, -100.0, 0.0)
    return mask.index_fill(3, torch.tensor([0]), 1.0)


TERMS = {
    "a bias of heads": [_bias],
    "turned round": [lambda *sizes: _bias(*sizes).mT.contiguous().mT],
    "of every other number": [lambda *sizes: _bias(*sizes[:-1], 2 * sizes[-1])[..., ::2]],
    "one number for each query": [lambda *sizes: _bias(*sizes)[..., :1]],
    "one number for each key": [_padding],
    "one number": [lambda *sizes: torch.tensor(-2.5)],
    "nothing at first": [_far],
    "a bias and a mask": [_bias, _far],
    "two masks": [_padding, _far],
}


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", ["one token", "odd sizes", "a window", "blocks of keys"])
@pytest.mark.parametrize("terms", TERMS)
def test_terms(terms, shape, dtype, is_causal, poisoned):
    q, k, v, out = tensors(shape, dtype)
    sizes = (*q.shape[:-1], k.shape[-2])
    made = [make(*sizes).to(dtype).expand(sizes) for make in TERMS[terms]]
    scale = q.shape[-1] ** -0.5
    attention.attention(q, k, v, out, made, scale, is_causal, 0.0).run()
    close(out, wanted(q, k, v, made, scale, is_causal))


@pytest.mark.parametrize("empty", [0.0, math.nan])
def test_queries_that_see_nothing(empty, poisoned):
    q, k, v, out = tensors("odd sizes", torch.float32)
    mask = torch.zeros(50, 33)
    mask[[0, 7, 49]] = -math.inf
    attention.attention(q, k, v, out, [mask.expand(1, 3, 50, 33)], 0.5, False, empty).run()
    others = [i for i in range(50) if i not in (0, 7, 49)]
    exact = wanted(q, k, v, [mask], 0.5, False)
    close(out[:, :, others], exact[:, :, others])
    torch.testing.assert_close(
        out[:, :, [0, 7, 49]], torch.full((1, 3, 3, 9), empty), equal_nan=True
    )


def test_what_is_no_number_is_none_in_the_result():
    q, k, v, out = tensors("a window", torch.float32)
    q[0, 0, 3, 5] = torch.nan
    k[1, 1, 2, 0] = torch.nan
    attention.attention(q, k, v, out, [], 0.2).run()
    exact = F.scaled_dot_product_attention(q, k, v, scale=0.2)
    assert torch.equal(out.isnan(), exact.isnan())


def test_heads_that_are_shared_or_broadcast(poisoned):
    q, k, v, out = tensors("odd sizes", torch.float64)
    k, v = k[:, :1].expand(-1, 3, -1, -1), v[:, 1:2].expand(-1, 3, -1, -1)
    attention.attention(q, k, v, out, [], 1.0).run()
    close(out, wanted(q, k, v, [], 1.0, False))


@pytest.mark.parametrize("shape", ["a window", "tiles", "blocks of keys"])
def test_a_query_does_not_depend_on_threads_or_on_its_tile(shape, monkeypatch):
    q, k, v, out = tensors(shape, torch.float32)
    found, before = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(attention.attention(q, k, v, out, [], 0.3).run().clone())
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(attention, "_tile", lambda heads, queries, lanes: lanes)
    found.append(attention.attention(q, k, v, out, [], 0.3).run().clone())
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (3, 49, 32, 49), (2, 300, 17, 33), (4, 7, 100, 16), (1, 500, 64, 1)]
)
def test_products_of_matrices(sizes, dtype, poisoned):
    pairs, rows, depth, columns = sizes
    torch.manual_seed(rows)
    a = torch.randn(pairs, rows, depth + 3, dtype=dtype)[..., :depth]
    for b in (
        torch.randn(pairs, depth, columns, dtype=dtype),
        torch.randn(pairs, columns, depth, dtype=dtype).mT,
        torch.randn(pairs, depth, columns, 2, dtype=dtype)[..., 1],
        torch.randn(depth, columns, dtype=dtype).expand(pairs, -1, -1),
    ):
        out = torch.full((pairs, rows, columns), torch.nan, dtype=dtype)
        matrices.product(a, b, out).run()
        exact = a.double() @ b.double()
        bound = 8 * torch.finfo(dtype).eps * depth**0.5 * (1 + exact.abs().max().item())
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=bound)
