"""The search offline: building the graph, evaluating, tuning, planning shapes."""
