"""What every request used and cost, written off the hot path."""
