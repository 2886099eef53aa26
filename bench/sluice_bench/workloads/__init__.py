"""What is asked of a server: a frozen corpus of prompts, and the suites that are made of it.

`corpus_generator` writes `bench/data/prompts.jsonl`, `corpus` reads it, `suites` turns its entries into the
items of a workload, `prepared` turns those into bytes for one server. Each step is a function of its
arguments alone, so that two servers, two days and two machines get the same requests.
"""
