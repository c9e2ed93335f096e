"""Blocks to output, one file a kind of output."""
