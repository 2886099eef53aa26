"""The worker's own C++ kernels for CPUs: a plain C library, built once per machine and called by ctypes."""
