"""What a convolution is, on no device: what it reads, what follows it, how it is described."""
