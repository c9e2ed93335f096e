"""Which layer gets which scheme and rank."""
