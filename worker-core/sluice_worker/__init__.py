"""The from-scratch inference engine and its HTTP server."""
