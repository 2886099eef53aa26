"""Measurements that can be believed: one client, one set of definitions, every engine."""
