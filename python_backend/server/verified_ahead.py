"""Compares the files of a repository's current version with their hashes while Triton starts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nann.manifest import verify_file
from nann.threads import core_count

from ..version_folder import bundle_artefacts
from ..version_history import Versions, bundle_of, release_path


class VerifiedAhead:
    """Threads that hash the files, the largest first. A process that needs a file waits for its hash.

    Args:
        repository: a model repository; one without a version has nothing to compare.
        found: folder of what the server's processes have found (`nann.found_once`), which is made.

    Raises:
        BundleError: if the version has no readable manifest.
        DeployError: if it can't be read which version is current.
    """

    def __init__(self, repository: Path, found: Path) -> None:
        found.mkdir()
        self.found = found
        self._pool = ThreadPoolExecutor(core_count())
        version = Versions.read(repository).current
        if version is None:
            self._compared = []
            return
        listed, release = bundle_of(repository, version).manifest, release_path(repository, version)
        files = {
            release / model / installed: listed["files"][name]
            for model, names in bundle_artefacts(listed).items()
            for name, installed in names.items()
            if name in listed["files"]  # all but the manifest
        }
        self._compared = [
            self._pool.submit(verify_file, path, entry, found)
            for path, entry in sorted(files.items(), key=lambda file: -file[1]["bytes"])
        ]

    def check(self, *, wait: bool = False) -> None:
        """Looks at what was compared so far, or waits for the rest.

        Raises:
            BundleError: if a file is missing, or its size or hash differs.
        """
        for one in self._compared:
            if wait or one.done():
                one.result()

    def close(self) -> None:
        """Ends the threads, each after the file that it reads."""
        self._pool.shutdown(cancel_futures=True)
