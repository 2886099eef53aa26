"""Building blocks of a decoder; they call kernels and never mention a device."""
