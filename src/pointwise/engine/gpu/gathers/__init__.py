"""What is read for a point, on GPUs."""
