"""Time by node, folded back onto the convolutions of a plan."""
