"""Fitting factors to what a layer gives: least squares on sums over unlabelled images."""
