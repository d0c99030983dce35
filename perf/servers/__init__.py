"""Servers to measure, and what is read from them: counters, memory, the cost of each hop."""
