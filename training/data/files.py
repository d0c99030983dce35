"""The files of a log: folders, patterns and Hive partitions as files, and packed files unpacked."""

from __future__ import annotations

import bz2
import glob
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import zstandard

from nann.errors import DataError

_PARQUET_MAGIC = b"PAR1"
_ZIP_MAGIC = b"PK\x03\x04"
_PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_UNPACKERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class LogFile:
    """One file.

    Attributes:
        path: where it is.
        label: its name in messages; of a file in a folder with the folders in between.
        partitions: the columns that its folders give, `day=2024-01-01`, as text; None is a missing value.
    """

    path: Path
    label: str = ""
    partitions: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> LogFile:
        """A file that was named itself."""
        return cls(path, path.name)


def log_files(paths: Sequence[Path]) -> list[LogFile]:
    """Files as they are, the files that match a pattern and all files below a folder, in order of their names.

    In folders, hidden files, files whose name begins with an underscore (`_SUCCESS`) and empty ones are left out.

    Raises:
        DataError: if a path does not exist, matches nothing, or is a folder without a file.
    """
    found: list[LogFile] = []
    for path in paths:
        matches = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise DataError(f"{path} does not exist; give the path of the log's file, its folder or a pattern")
        for match in matches:
            found += _in_folder(match) if match.is_dir() else [LogFile.of(match)]
    return found


def _in_folder(folder: Path) -> list[LogFile]:
    files = []
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        if any(part.startswith(("_", ".")) for part in within.parts) or not path.is_file() or not path.stat().st_size:
            continue
        pairs = [part.split("=", 1) for part in within.parts[:-1] if "=" in part]
        values = {unquote(name): None if value == _NO_VALUE else unquote(value) for name, value in pairs}
        files.append(LogFile(path, str(within), values))
    if not files:
        raise DataError(
            f"{folder} is a folder without a file to read; hidden and empty files and _SUCCESS do not count"
        )
    return files


def is_parquet(path: Path) -> bool:
    """Whether the file is Parquet, by its content.

    Raises:
        DataError: if it is missing, empty or a folder, or is named `.parquet` and is not Parquet.
    """
    found = _head(path, 4) == _PARQUET_MAGIC
    if path.suffix == ".parquet" and not found:
        raise DataError(
            f"{path} is named .parquet and its content is not Parquet; expected a Parquet file: write it again"
        )
    return found


def byte_blocks(path: Path, size: int) -> Iterator[bytes]:
    """The content of a file that is plain or packed with gzip, bzip2, xz or zstd, about `size` bytes at a time.

    A truncated archive is an error and not the end, as any part of the log may be missing.

    Raises:
        DataError: if the file is missing, empty, a damaged archive or of another kind.
    """
    head = _head(path, 8)
    packer = next((name for magic, name in _PACKERS.items() if head.startswith(magic)), None)
    expected = _SUFFIXES.get(path.suffix)
    if expected and packer is None:
        raise DataError(
            f"{path} is named {path.suffix} and its content is not {expected}; rename it if it is plain text"
        )
    if head.startswith(_ZIP_MAGIC):
        raise DataError(f"{path} is a zip archive; expected plain text, gzip, bzip2, xz or zstd: unzip it first")
    if head.startswith(_PARQUET_MAGIC):
        raise DataError(f"{path} is Parquet; expected text: read it with `nann prepare log`")
    with path.open("rb") as file:
        if packer is None:
            while block := file.read(size):
                yield block
            return
        try:
            yield from _unpacked(file, _UNPACKERS[packer])
        except _DAMAGED as error:
            message = f"{path} is a damaged {packer} file ({error}); expected a whole one: copy it again"
            raise DataError(message) from error


def _unpacked(file: IO[bytes], unpacker: Callable[[], Any]) -> Iterator[bytes]:
    # Not the libraries' own files: they take a truncated zstd archive, and bzip2 and xz that are damaged where another
    # stream begins, for whole ones.
    unpack, data = unpacker(), b""
    while data or (data := file.read(_READ_BYTES)):
        if unpack.eof:
            unpack = unpacker()
        if block := unpack.decompress(data):
            yield block
        data = unpack.unused_data.lstrip(b"\0") if unpack.eof else b""  # zeros pad
    if not unpack.eof:
        raise EOFError("it ends early")


def _head(path: Path, size: int) -> bytes:
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a file: name the file in it")
    if not path.is_file():
        raise DataError(f"{path} does not exist; give the path of the file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; expected at least one row")
    with path.open("rb") as stream:
        return stream.read(size)
