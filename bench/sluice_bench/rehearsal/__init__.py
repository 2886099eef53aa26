"""What the router promises, tried out with real processes and measured by their clients."""
