"""Models not built from our layers, made faster: a backend of torch.compile, and a module."""

from pointwise.acceleration.dynamo import backend, reports
from pointwise.acceleration.model import accelerate
from pointwise.acceleration.module import Accelerated

__all__ = ["Accelerated", "accelerate", "backend", "reports"]
