"""Gradient after the closed form: factors trained towards the original network, without labels."""
