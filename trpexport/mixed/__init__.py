"""float32 or int8, layer by layer, in one choice with schemes and ranks."""
