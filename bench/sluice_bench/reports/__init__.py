"""Runs as pages: HTML, plots, tables of rows, costs, the frontier of speed and quality. Measures nothing."""
