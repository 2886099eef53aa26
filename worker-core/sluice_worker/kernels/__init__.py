"""The few operations everything is computed with, behind one protocol."""
