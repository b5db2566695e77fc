"""A loss that is the mean IoU's, where cross entropy counts points."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 8192  # rows, drawn anew each time: sorting all would take a tenth of a step


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the IoU, averaged over the classes in ``labels [N]``, for ``logits [N, K]``.

    IoU is defined for predictions that are right or wrong; this is its extension to probabilities,
    convex in the errors, and the same where all of these are 0 or 1 (Berman, Triki, Blaschko, CVPR
    2018, "The Lovász-Softmax loss"). Rows with a negative label are left out, and
    without others it is NaN.
    """
    rows = (labels >= 0).nonzero().squeeze(1)
    if len(rows) > MOST:
        rows = rows[torch.randint(len(rows), (MOST,), device=rows.device)]
    logits, labels = logits.index_select(0, rows), labels[rows]
    present = labels.bincount().nonzero().squeeze(1)
    probabilities = logits.t().softmax(dim=0).index_select(0, present)  # [C, N]
    own = (labels == present[:, None]).to(logits.dtype)
    errors, order = (own - probabilities).abs().sort(dim=1, descending=True)
    return (errors * _steps(own.gather(1, order))).sum(dim=1).mean()


def _steps(own: Tensor) -> Tensor:
    """What each row costs of the IoU ``[C, N]``, where all rows before it are wrong as well."""
    count = own.sum(dim=1, keepdim=True)
    right = count - own.cumsum(dim=1)
    union = count + (1 - own).cumsum(dim=1)
    lost = 1 - right / union
    return lost.diff(dim=1, prepend=lost.new_zeros(len(lost), 1))
