"""Benchmarks of the served ensemble."""
