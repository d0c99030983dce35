"""The benchmarks that `nann bench` runs, one module each; `nann.perf.report` lists them."""
