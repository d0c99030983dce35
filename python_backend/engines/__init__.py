"""Run a bundle's ONNX files: under onnxruntime, or in torch with CUDA graphs."""
