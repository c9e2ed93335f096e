"""Networks that are ONNX files: the graph itself is rewritten."""
