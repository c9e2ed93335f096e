"""Facts to blocks, one file a view: pure functions that format nothing."""
