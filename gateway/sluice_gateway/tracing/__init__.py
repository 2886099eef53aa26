"""Traces of requests for OpenTelemetry, for those that are sampled; nothing at all for the others."""
