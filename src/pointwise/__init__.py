"""Convolution at every point of an image or of a point cloud."""

__version__ = "0.1.0"
