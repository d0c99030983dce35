"""Catalogs with model repositories of their own, without Triton."""

from __future__ import annotations

import contextlib

from nann.catalog import JournalReader
from nann.catalog.journal import journal_path
from nann.python_backend.repository.install import install_bundle
from support.catalog_requests import ask, catalog_of
from support.waiting import wait_until

STREAM_KEY = "items"


class Site:
    """A model repository, and its catalog while it runs."""

    def __init__(self, bundle, folder):
        self.repository = folder
        self.model = None
        install_bundle(bundle.path, folder)

    def start(self):
        self.model = catalog_of(self.repository)
        return self

    def stop(self):
        if self.model is not None:
            self.model.finalize()
            self.model = None

    def ask(self, *asked, **more):
        return ask(self.model, *asked, **more)

    def journal(self):
        with contextlib.closing(JournalReader(journal_path(self.repository))) as reader:
            return [(record.sequence, record.payload) for record in reader.new()]


def agree(*sites):
    wait_until(lambda: len({tuple(site.journal()) for site in sites}) == 1)
