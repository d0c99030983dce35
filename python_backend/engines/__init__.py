"""What runs a bundle's ONNX files: onnxruntime, or torch with CUDA graphs."""
