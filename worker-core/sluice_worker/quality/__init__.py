"""What quantizing costs: variants of a model compared with each other on a fixed text."""
