"""Which versions of a model repository were current, and where their files are.

For what runs inside Triton as well as for what runs beside it; `repository/versions.py` changes the versions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nann.bundle import Bundle
from nann.durable_files import write_json
from nann.errors import DeployError
from nann.manifest import JOURNAL_SEQUENCE
from nann.signature import BEAM_RETRIEVAL

VERSIONS_FOLDER = ".versions"
VERSIONS_FILE = "versions.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Versions:
    """The content of `versions.json`.

    Attributes:
        history: the versions that were current, oldest first, each once. The last one is current; rollback removes it.
        identities: `identity_of` the bundle (and plans) of every version that ever was current, by version: a number is
            never used for two bundles.
    """

    history: tuple[int, ...] = ()
    identities: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, repository: Path) -> Versions:
        """Reads those of a repository; none if nothing was installed yet.

        Raises:
            DeployError: if the file is not valid.
        """
        path = versions_folder(repository) / VERSIONS_FILE
        if not path.exists():
            return cls()
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            if body["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format version {body['format_version']}")
            return cls(tuple(body["history"]), {int(number): name for number, name in body["identities"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeployError(f"{path} can't be read: {error}; install a bundle in another repository") from error

    def write(self, repository: Path) -> None:
        """Writes them to the repository, atomically: at this moment a version becomes current."""
        identities = {str(number): name for number, name in sorted(self.identities.items())}
        body = {"format_version": FORMAT_VERSION, "history": list(self.history), "identities": identities}
        write_json(versions_folder(repository) / VERSIONS_FILE, body)

    @property
    def current(self) -> int | None:
        """The version that answers; None before the first installation."""
        return self.history[-1] if self.history else None

    @property
    def next(self) -> int:
        """The number for a new version."""
        return max(self.identities, default=0) + 1

    def with_current(self, version: int, identity: str) -> Versions:
        """Makes `version` current; a rollback returns to the version before it."""
        history = (*(number for number in self.history if number != version), version)
        return Versions(history, {**self.identities, version: identity})

    def rolled_back_to(self, version: int) -> Versions:
        """Makes an earlier `version` current again; later ones leave the history."""
        return Versions(self.history[: self.history.index(version) + 1], self.identities)


def release_path(repository: Path, version: int) -> Path:
    """Folder with all files of a version, one folder per model."""
    return versions_folder(repository) / str(version)


def bundle_of(repository: Path, version: int) -> Bundle:
    """Opens what searches of a version use of its bundle; nothing is verified again."""
    return Bundle.open(release_path(repository, version) / BEAM_RETRIEVAL.name, ())


def contained_sequence(repository: Path) -> int:
    """Up to which change of the items none is needed: every version that may answer contains them."""
    versions = Versions.read(repository).history
    return min((int(bundle_of(repository, each).manifest.get(JOURNAL_SEQUENCE, 0)) for each in versions), default=0)


class CurrentBundle:
    """The bundle of the version that answers, opened again when another one does."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._version: int | None = None
        self._bundle: Bundle | None = None

    def get(self) -> Bundle | None:
        """The bundle; None before the first installation."""
        version = Versions.read(self._repository).current
        if version is not None and version != self._version:
            self._bundle, self._version = bundle_of(self._repository, version), version
        return self._bundle


def versions_folder(repository: Path) -> Path:
    """Folder with the files of all versions."""
    return repository / VERSIONS_FOLDER
