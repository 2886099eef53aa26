"""Batches: files of requests that are run when there is room, and survive the process that runs them."""
