"""Stores of users' histories that feature_transform asks, and what keeps a store's bad days from requests."""
