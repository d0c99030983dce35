"""Measurements of studies that compare searches, independent of how their models are made."""
