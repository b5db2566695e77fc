"""What is read for each point: the gathers, one file each."""
