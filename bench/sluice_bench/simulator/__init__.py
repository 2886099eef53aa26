"""A fleet of gateways and engines in simulated time, with the router's own objects in it.

`fleet.py` puts it together; `engine_model.py` says what an engine is taken to be. Nothing here opens a
socket, reads a clock or draws a random number that was not passed in: the same seed gives the same run.
"""
