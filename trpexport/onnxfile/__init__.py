"""MACs, parameters and activations of ONNX files, from shapes alone."""
