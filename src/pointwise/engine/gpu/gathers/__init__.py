"""What is read for a point, one file each, in Triton."""
