"""Triton as a child process: install, start, control, revive, keys, TLS, the preloaded library."""
