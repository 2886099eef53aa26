"""OpenAI's Responses API, in terms of chat completions. Pure: no I/O, no clock, no randomness."""
