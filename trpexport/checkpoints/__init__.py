"""Reading a checkpoint safely and recognising its architecture."""
