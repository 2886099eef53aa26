"""Named peers that run beside Sluice in the same measurement, so that a figure is a ratio and not a boast."""
