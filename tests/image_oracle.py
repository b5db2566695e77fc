"""Convolution on lines, images and volumes, as loops in NumPy float64. Imports nothing from the
package.

An image is ``[N, C, *sizes]``, a weight ``[C_out, C_in/groups, *kernel]``, ``edges`` has a pair
(before, after) for each dimension.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

# How far a result may be from the exact one, in units of eps·√K·Σ|x||w|: for each number by itself.
TOLERANCE = 2.0


def same_edges(size, kernel, stride, dilation):
    """TensorFlow's SAME in one dimension: the output has ceil(size / stride) pixels, what has to be
    added for that is split in halves, and an odd one goes to the end."""
    outputs = math.ceil(size / stride)
    last_read = (outputs - 1) * stride + (kernel - 1) * dilation
    missing = max(last_read - (size - 1), 0)
    return math.floor(missing / 2), math.ceil(missing / 2)


def edges(padding, sizes, kernel, stride, dilation):
    """The pairs that a ``padding`` stands for."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        return [same_edges(*one) for one in zip(sizes, kernel, stride, dilation, strict=True)]
    if isinstance(padding, int):
        padding = [padding] * len(sizes)
    return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]


def output_sizes(sizes, kernel, stride, edges, dilation):
    """How many places of the kernel there are, counted."""
    found = []
    for size, k, s, (before, after), d in zip(sizes, kernel, stride, edges, dilation, strict=True):
        places = range(-before, size + after - (k - 1) * d, s)
        found.append(len(places))
    return tuple(found)


def reads(sizes, kernel, stride, edges, dilation):
    """Every (pixel of the result, cell of the kernel, pixel of the image) that belong together."""
    results = output_sizes(sizes, kernel, stride, edges, dilation)
    for target in itertools.product(*map(range, results)):
        for cell in itertools.product(*map(range, kernel)):
            source = tuple(
                t * s - before + c * d
                for t, s, (before, _), c, d in zip(
                    target, stride, edges, cell, dilation, strict=True
                )
            )
            if all(0 <= p < size for p, size in zip(source, sizes, strict=True)):
                yield target, cell, source


def _by_group(images, groups):
    """[N, C, *sizes] as [groups, N, C/groups, *sizes]."""
    shape = (images.shape[0], groups, images.shape[1] // groups, *images.shape[2:])
    return np.moveaxis(images.astype(np.float64).reshape(shape), 1, 0)


def _in_one(grouped):
    """The way back from ``_by_group``."""
    images = np.moveaxis(grouped, 0, 1)
    return images.reshape(len(images), images.shape[1] * images.shape[2], *images.shape[3:])


def _weight_by_group(weight, groups):
    """[groups, C_out/groups, C_in/groups, *kernel]."""
    return weight.astype(np.float64).reshape(groups, len(weight) // groups, *weight.shape[1:])


def _everywhere(place):
    return (*[slice(None)] * 3, *place)


def _at(array, place):
    return array[_everywhere(place)]


def conv(x, weight, bias, stride, edges, dilation, groups):
    """``Σ_cell weight[:, :, cell] · x[:, :, target·stride - before + cell·dilation] + bias``."""
    sizes, kernel = x.shape[2:], weight.shape[2:]
    results = output_sizes(sizes, kernel, stride, edges, dilation)
    per_group = _weight_by_group(weight, groups)
    grouped = _by_group(x, groups)
    out = np.zeros((groups, len(x), per_group.shape[1], *results))
    for target, cell, source in reads(sizes, kernel, stride, edges, dilation):
        out[_everywhere(target)] += _at(grouped, source) @ _at(per_group, cell).swapaxes(1, 2)
    out = _in_one(out)
    if bias is not None:
        out += bias.astype(np.float64).reshape(-1, *[1] * len(kernel))
    return out


def gradients(grad, x, weight, stride, edges, dilation, groups):
    """(d x, d weight, d bias) of ``conv`` for the gradient of its result."""
    sizes, kernel = x.shape[2:], weight.shape[2:]
    per_group = _weight_by_group(weight, groups)
    grouped, slopes = _by_group(x, groups), _by_group(grad, groups)
    d_x, d_weight = np.zeros_like(grouped), np.zeros_like(per_group)
    for target, cell, source in reads(sizes, kernel, stride, edges, dilation):
        slope = _at(slopes, target)
        d_x[_everywhere(source)] += slope @ _at(per_group, cell)
        d_weight[_everywhere(cell)] += slope.swapaxes(1, 2) @ _at(grouped, source)
    over = (0, *range(2, grad.ndim))
    return _in_one(d_x), d_weight.reshape(weight.shape), grad.astype(np.float64).sum(axis=over)


def activate(x, name):
    """The activation ``name`` of float64 numbers, by its definition."""
    if name == "relu":
        return np.maximum(x, 0)
    if name == "relu6":
        return np.minimum(np.maximum(x, 0), 6)
    if name == "hardswish":
        return x * np.minimum(np.maximum(x + 3, 0), 6) / 6
    if name == "silu":
        return x / (1 + np.exp(-x))
    if name == "gelu":
        return x * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))) / 2
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name == "hardsigmoid":
        return np.minimum(np.maximum(x + 3, 0), 6) / 6
    if name == "mish":
        return x * np.tanh(np.logaddexp(0, x))
    if name == "tanh":
        return np.tanh(x)
    if name == "elu":
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    if name.startswith("leaky_relu"):
        return np.where(x > 0, x, float(name.removeprefix("leaky_relu").strip("_") or 0.01) * x)
    assert name == "none"
    return x


def assert_close(actual, expected, magnitude, terms, eps=None, what="result"):
    """Each number within c·eps·√terms·magnitude of the expected one; NaN never passes.

    ``magnitude`` is the sum of the absolute values of what was added up, so that a result made of
    nothing has to be exactly zero.
    """
    actual = np.asarray(actual)
    eps = np.finfo(actual.dtype).eps if eps is None else eps
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    allowed = np.broadcast_to(TOLERANCE * eps * np.sqrt(terms) * magnitude, expected.shape)
    wrong = ~(np.abs(actual.astype(np.float64) - expected) <= allowed)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: {wrong.sum()} of {wrong.size} wrong; {list(where)} is {actual[where]}, "
            f"expected {expected[where]}, allowed error {allowed[where]:.3g}"
        )


# --- shift ----------------------------------------------------------------------------------------


def _channels_of(cell, channels, kernel):
    """Which channels are moved by a cell's offset: in order, what is left over by the middle's."""
    group = channels // math.prod(kernel)
    place = 0
    for index, size in zip(cell, kernel, strict=True):
        place = place * size + index
    own = list(range(place * group, (place + 1) * group))
    if all(index == size // 2 for index, size in zip(cell, kernel, strict=True)):
        own += range(group * math.prod(kernel), channels)
    return own


def _centred(kernel, dilation):
    return [(d * (k - 1) // 2,) * 2 for k, d in zip(kernel, dilation, strict=True)]


def shift(x, kernel, stride, dilation):
    """Every channel at ``target·stride + (cell - middle)·dilation``; zeros outside."""
    places = stride, _centred(kernel, dilation), dilation
    out = np.zeros((*x.shape[:2], *output_sizes(x.shape[2:], kernel, *places)))
    for target, cell, source in reads(x.shape[2:], kernel, *places):
        for c in _channels_of(cell, x.shape[1], kernel):
            out[(slice(None), c, *target)] = x[(slice(None), c, *source)]
    return out


def shift_adjoint(a, sizes, kernel, stride, dilation):
    """The same read backwards: what a channel of a pixel got goes back to where it came from."""
    out = np.zeros((*a.shape[:2], *sizes))
    for target, cell, source in reads(sizes, kernel, stride, _centred(kernel, dilation), dilation):
        for c in _channels_of(cell, a.shape[1], kernel):
            out[(slice(None), c, *source)] += a[(slice(None), c, *target)]
    return out
