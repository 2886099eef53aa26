"""Several processes as one gateway.

The supervisor opens the sockets, starts the workers and the managed engines, and replaces what dies. It
serves no request itself. Each worker is a whole gateway; what concerns all of them (metrics, configuration,
signals) goes over a socket between the supervisor and each worker, in the messages of `messages.py`.

Invariants: a worker never outlives its supervisor (the socket's end tells it); a port that was opened stays
open until the supervisor ends; a counter on the metrics page never goes back, for what a worker has counted
is kept when it is gone.
"""
