"""The kinds of work that costs are told apart by, in the order in which tables show them."""

from __future__ import annotations

STANDARD = "standard"
GROUPED = "grouped"
DEPTHWISE = "depthwise"
POINTWISE = "pointwise"
SEPARABLE = "separable"
INVERTED = "inverted"
TRANSPOSED = "transposed"
CELL = "cell"
CELL_DEPTHWISE = "cell depthwise"
SHIFT = "shift"
LINEAR = "linear"
PRODUCT = "matrix product"
ATTENTION = "attention"
RECURRENT = "recurrent"
NORM = "norm"
ACTIVATION = "activation"
ELEMENTWISE = "element-wise"
SOFTMAX = "softmax"
POOLING = "pooling"
REDUCTION = "reduction"
MOVING = "moving"
SEARCH = "search"
NOT_COUNTED = "not counted"
NOTHING = "nothing"

CONVOLUTIONS = (STANDARD, GROUPED, DEPTHWISE, POINTWISE, TRANSPOSED, CELL, CELL_DEPTHWISE, SHIFT)

MEANING = {
    STANDARD: "every result sees all channels of a patch",
    GROUPED: "every result sees the channels of its own group",
    DEPTHWISE: "every result sees a patch of a single channel",
    SEPARABLE: "a depthwise and a pointwise one that ran as one",
    INVERTED: "a convolution, a depthwise and a pointwise one that ran as one",
    POINTWISE: "1×1: every result sees all channels of one pixel or point",
    TRANSPOSED: "the other way round: every input is spread over a patch of results",
    CELL: "on clouds: every result sees all channels of the kernel cells around a point",
    CELL_DEPTHWISE: "on clouds: every result sees the kernel cells of a single channel",
    SHIFT: "every result sees all channels, each at the place it was moved from",
    LINEAR: "a weight matrix times vectors",
    PRODUCT: "a matrix times another",
    ATTENTION: "two matrix products with a softmax between them",
    RECURRENT: "a weight matrix for each step of a sequence, in one operator",
    NORM: "batch, layer, group and other norms",
    ACTIVATION: "relu, sigmoid and such: one function of each number",
    ELEMENTWISE: "sums, products and such, number by number",
    SOFTMAX: "exponentials and their sum",
    POOLING: "maximum or mean of patches, or in between pixels",
    REDUCTION: "sums, means and maxima over dimensions",
    MOVING: "numbers only copied, filled in or looked up",
    SEARCH: "who is whose neighbour: its bytes are counted, its arithmetic is not",
    NOT_COUNTED: "operators without a formula: their bytes are counted, their arithmetic is not",
    NOTHING: "parameters of modules that did not run",
}
"""What each kind is, in its order."""

ORDER = tuple(MEANING)


def of_convolution(kernel, in_channels: int, groups: int) -> str:
    """The kind of a convolution on an image, a line or a volume."""
    if 1 < groups == in_channels:
        return DEPTHWISE
    if groups > 1:
        return GROUPED
    return POINTWISE if all(size == 1 for size in kernel) else STANDARD
