"""Corpora to measure on, and their users: Table 1's synthetic one, planted vectors, a bundle of real data."""
