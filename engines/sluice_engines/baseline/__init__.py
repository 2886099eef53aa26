"""A plain local server around somebody else's `generate`, to compare engines with.

    python -m sluice_engines.baseline --runtime transformers --model FOLDER

It does what an afternoon's script would do: static batching, a whole batch at a time, nothing cached between
requests. What continuous batching, paging and prefix caching are worth is the difference to it.

    __main__.py        the command
    app.py             OpenAI's chat and completions over ASGI
    answers.py         answers under way, whole or streamed
    wire.py            writing them
    requests.py        bodies, checked
    batcher.py         which requests run together
    text.py            from tokens to text, stop strings cut
    runtime.py         what a runtime is; `transformers_runtime.py` and `onnx_runtime.py` are two

It runs in a process of its own: nothing else of this distribution imports it, or torch.
"""
