"""Measurements on a GPU: calls of the scorer, TensorRT plans, and the report of both."""
