"""Time by node, folded back onto the layers of a plan."""
