"""Rank criteria: one file each."""
