"""Load on a live server: from perf_analyzer, from our own client, and the requests that they send."""
