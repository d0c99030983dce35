"""Answers for many users at once (`nann batch`): their histories, the search here or on Ray, Parquet parts."""
