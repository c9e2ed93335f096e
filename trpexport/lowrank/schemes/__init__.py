"""Factorization schemes: one file each."""
