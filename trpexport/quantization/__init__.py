"""An ONNX network in numbers of fewer bits."""
