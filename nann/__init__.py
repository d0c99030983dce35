"""Graph search under a neural scorer: the core, on NumPy and a native kernel alone (arXiv 2202.10226)."""
