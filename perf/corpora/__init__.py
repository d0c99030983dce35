"""Corpora and their users to measure on: Table 1's synthetic one, planted graphs, a bundle of real data."""
