"""The benchmarks of `nann bench`, one module each; `nann.perf.report` lists them."""
