"""Triton as a child process: find, start, control and repair it; keys, TLS, the preloaded library."""
