"""Turns a batch of requests into outcomes; holds the scorers that a search may use."""
