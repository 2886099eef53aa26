"""What all processes' metrics pages have in common."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "sluice_gateway_"
"""Of every series."""
