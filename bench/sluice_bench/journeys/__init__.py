"""What users do with a server, one step after the other: for Locust; never for claims about latency."""
