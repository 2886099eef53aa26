"""The edge: the OpenAI surface, keys, relay, and the `sluice` command."""
