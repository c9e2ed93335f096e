"""An emulated ARM processor."""
