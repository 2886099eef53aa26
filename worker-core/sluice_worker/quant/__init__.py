"""Weights as small integers: what they are, how they are made, and which layers get which."""
