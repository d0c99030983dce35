"""From torch modules to ONNX files in a bundle, and from those to TensorRT plans."""
