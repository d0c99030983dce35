"""Changes that tests make to bundles."""

from __future__ import annotations

from pathlib import Path

from nann.bundle import LIGHT_VECTORS_FILE, Bundle, write_manifest


def without_light(path: Path) -> Bundle:
    """Removes the light score from a bundle, since a user's own model may have none."""
    indexed = Bundle.open(path, files=[])
    (path / LIGHT_VECTORS_FILE).unlink()
    manifest = {key: value for key, value in indexed.manifest.items() if key != "search_by_entry"}
    manifest["search"] = indexed.manifest["search_by_entry"].get("layers", indexed.manifest["search"])
    return write_manifest(path, manifest, set(indexed.manifest["files"]) - {LIGHT_VECTORS_FILE})
