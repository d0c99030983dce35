"""Offline side, in PyTorch: data, the scorer's training, evaluation, the HNSW index, the ONNX export."""
