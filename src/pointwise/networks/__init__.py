"""Networks made of the convolutions, one file per network."""

from pointwise.networks.cell_pyramid import CellPyramid
from pointwise.networks.cell_unet import CellUNet
from pointwise.networks.hua2018 import Hua2018Classification, Hua2018Segmentation

__all__ = ["CellPyramid", "CellUNet", "Hua2018Classification", "Hua2018Segmentation"]
