"""Pure routing decisions: admission, queueing, placement. No I/O; the clock is passed in."""
