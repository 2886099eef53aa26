"""Experiments as commands: each starts what it needs, measures it, and writes a page into docs/reports."""
