"""The benchmarks that `nann bench` runs, one module each; `nann.perf.suite` lists them."""
