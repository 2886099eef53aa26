"""Requests, tokens, concurrency and money per key, tenant and model."""
