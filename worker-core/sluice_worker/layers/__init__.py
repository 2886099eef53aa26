"""The parts of a decoder, each reading its own weights and calling kernels."""
