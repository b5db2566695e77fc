"""Models that are not built from our layers, made faster: a backend of torch.compile, and a module."""

from pointwise.acceleration.dynamo import backend, reports

__all__ = ["backend", "reports"]
