"""Retrieval without a deep model, to compare one with: popular items, own items, item-kNN, ALS."""
