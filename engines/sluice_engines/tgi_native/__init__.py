"""Between OpenAI's API and Text Generation Inference's own.

    transport.py    what an adapter puts around the gateway's client: requests in, OpenAI's answers out
    completions.py  a completion as a call of `/generate`
    answers.py      what `/generate` and `/generate_stream` answered, as completions
    chat.py         what to change in requests to the Messages API, and in its answers
    refusals.py     errors, in either direction
    client.py       huggingface-hub's client of the native API, over the gateway's own connections

All but `client.py` and `transport.py` are pure. The native API is described in `docs/openapi.json` of
huggingface/text-generation-inference at v3.3.7, and where that is silent in `router/src/validation.rs`.
"""
