"""Clients of the served ensemble over gRPC and HTTP."""
