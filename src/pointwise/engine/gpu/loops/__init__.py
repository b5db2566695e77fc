"""The loops of ``engine.cpu.loops`` as kernels for GPUs: kernel and host side in one file."""
