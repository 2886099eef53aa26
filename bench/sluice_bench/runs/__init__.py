"""Runs as values: from what is to be asked to a `RunRecord`, for every command that loads a server."""
