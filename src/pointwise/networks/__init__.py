"""Networks made of the convolutions, one file per network."""

from pointwise.networks.cell_pyramid import CellPyramid
from pointwise.networks.cell_unet import CellUNet
from pointwise.networks.efficientnet import EfficientNetB0
from pointwise.networks.hua2018 import Hua2018Classification, Hua2018Segmentation
from pointwise.networks.mobilenet_v1 import MobileNetV1
from pointwise.networks.mobilenet_v2 import MobileNetV2
from pointwise.networks.mobilenet_v3 import MobileNetV3
from pointwise.networks.resnet import ResNet50
from pointwise.networks.weights import load_weights
from pointwise.networks.xception import Xception

__all__ = [
    "CellPyramid",
    "CellUNet",
    "EfficientNetB0",
    "Hua2018Classification",
    "Hua2018Segmentation",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "ResNet50",
    "Xception",
    "load_weights",
]
