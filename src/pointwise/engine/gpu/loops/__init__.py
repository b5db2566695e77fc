"""The tile loops, kernel and host side in one file, in Triton."""
