"""`nann explore`: a page to try, judge and explain the retrieval.

The answers come from a running server, over its public API. What explains them (the walk round by round, the exhaustive
list, the cascade) is computed here from the server's bundle, in requests of their own.
"""
