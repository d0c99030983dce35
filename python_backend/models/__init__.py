"""The classes that Triton's Python backend loads; `model_repository/*/1/*.py` import them."""
