"""Whoever holds a network: what the mathematics asks of it."""
