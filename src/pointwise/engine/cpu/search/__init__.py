"""Who is near whom: the grid, the search for neighbours on it, and voxels."""
