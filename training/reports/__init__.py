"""What studies, benchmarks and the GPU report share: stored results, tables, plots, the machine's description."""
