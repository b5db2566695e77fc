"""The tile loops, which go through all points of a result: one file each."""
