"""Experiments as commands: what an engine, a technique or a way of serving buys, on the same requests.

plan            an experiment as data: engines, variants, loads, and what its page shows
requirement     what must be there before it begins
stack           the engines and a gateway before them, started and ended
measurement     carries a plan out: a run file for every run, a row for every figure's source
page            the Markdown page of what was measured
batching …      the plans
"""
