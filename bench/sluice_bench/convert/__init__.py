"""Runs to and from the formats of other tools, where fields mean the same; refusal where they do not."""
