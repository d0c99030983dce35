"""From an interaction log to a prepared data set folder, and from there to arrays."""
