"""Helpers that several tests share: tiny corpora and bundles, fakes of Triton, servers, reference results."""
