"""From a batch of requests to its outcomes, and the scorers that a search may hold."""
