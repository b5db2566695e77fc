"""The operators as PyTorch knows them; importing this registers ``torch.ops.pointwise``."""

from pointwise.operators import cells, images, normed, shift

__all__ = ["cells", "images", "normed", "shift"]
