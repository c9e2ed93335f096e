"""From a PyTorch network to a verified ONNX file."""
