"""Who is near whom, on a GPU: the grid, the search for neighbours on it, and voxels.

Sorting and sums are PyTorch's, on the device; kernels do what a walk through sorted points takes.
Sizes that depend on values (how many pairs, how many voxels) are all that the CPU waits for, and
what is wrong with the input comes with them in the same read.
"""
