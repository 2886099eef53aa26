"""From a model's name to its files, its shape and its weights."""
