"""Load on a live server: perf_analyzer, closed- and open-loop clients, and the requests they send."""
