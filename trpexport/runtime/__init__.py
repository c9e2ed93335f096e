"""The edge room: onnxruntime and numpy only, never torch."""
