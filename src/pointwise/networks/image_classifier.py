"""What the image networks share: checks of arguments, widths, first values, the last layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from pointwise import checks


class ImageClassifier(nn.Module):
    """A score for each image and class: ``images [N, in_channels, H, W]`` to ``[N, classes]``.

    A network says what its ``features`` are, and what its ``head`` makes of their mean over the
    image. So any size of image will do. Small images (of less than about 100 pixels) would reach
    the last layers as one or two pixels; with ``stem_stride=1`` everything is twice as large.
    """

    LAST_LAYER = "classifier"
    """The name of the layer that gives the classes."""

    def __init__(self, classes: int, in_channels: int, stem_stride: int) -> None:
        super().__init__()
        name = type(self).__name__
        for what, given in (("classes", classes), ("in_channels", in_channels)):
            if not isinstance(given, int) or given < 1:
                raise ValueError(f"{name}: {what} must be a whole number from 1, got {given!r}")
        if stem_stride not in (1, 2):
            raise ValueError(
                f"{name}: stem_stride must be 2, or 1 for images of less than about 100 pixels, "
                f"got {stem_stride!r}"
            )

    def features(self, images: Tensor) -> Tensor:
        """``images [N, in_channels, H, W]`` to the last convolution's ``[N, C, H/32, W/32]``."""
        raise NotImplementedError

    def head(self, pooled: Tensor) -> Tensor:
        """The features' mean ``[N, C]`` to logits ``[N, classes]``."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        checks.image(type(self).__name__, images, 2)
        if images.dim() != 4:
            raise ValueError(
                f"{type(self).__name__}: images must be a batch [N, C, H, W], got "
                f"{checks.describe(images)}; for one image, images[None]"
            )
        return self.head(self.features(images).mean((2, 3)))


def divisible(channels: float) -> int:
    """The multiple of 8 nearest to ``channels``, from 8, but never more than a tenth below it.

    Kernels like multiples of 8. Source: Sandler et al., "MobileNetV2", 2018, the authors' code.
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def check_width(caller: str, width: float) -> None:
    """``width`` is a positive factor."""
    if not isinstance(width, (int, float)) or not 0 < width < math.inf:
        raise ValueError(
            f"{caller}: width must be a positive factor for the number of channels, such as 0.25, "
            f"got {width!r}"
        )


def initialise(network: nn.Module) -> None:
    """The first values of the convolutions and norms, as the authors of these networks have them.

    Normal with variance ``2 / fan_out``, the outputs that an input channel reaches: in a depthwise
    convolution, those of its own channel alone. (PyTorch's ``kaiming_normal_`` counts all, so that
    without batch norm a depthwise layer would be almost silent.) Biases 0, norms the identity.
    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.2, equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise_linear(layer: nn.Linear) -> None:
    """Normal with standard deviation 0.01, bias 0: all classes start out equally likely."""
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.zeros_(layer.bias)
