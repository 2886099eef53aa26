"""The request's way as machine code: the modules that every request passes, compiled by mypyc from the same
sources.

The sources are the specification and the twin: without the compiled modules, or with older ones, the gateway
serves from them, with the same answers, at about two thirds of the speed (`docs/reports/gateway.md`).
"""
