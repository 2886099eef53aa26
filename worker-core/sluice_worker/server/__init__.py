"""The HTTP process: OpenAI surface, templates, tokenizing, detokenizing, stop strings."""
