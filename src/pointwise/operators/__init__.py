"""The operators as PyTorch knows them; importing this registers ``torch.ops.pointwise``.

``ops`` are the same, without PyTorch's dispatcher where nobody would notice.
"""

from pointwise.engine.library import ops
from pointwise.operators import cells, images, normed, shift

__all__ = ["cells", "images", "normed", "ops", "shift"]
