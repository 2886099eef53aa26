"""Answers that serve more than one request: idempotency keys, and the exact response cache."""
