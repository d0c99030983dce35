"""Servers to measure, and what is read from them: counters, memory, the time that Triton itself takes."""
