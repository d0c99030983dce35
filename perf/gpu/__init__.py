"""What is measured on a GPU: calls of the scorer, plans, the report."""
