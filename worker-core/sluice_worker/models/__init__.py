"""Decoders, assembled from layers by config flags."""
