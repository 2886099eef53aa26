"""Putting a model on a shared volume, whole or not at all: `sluice-worker stage`."""
