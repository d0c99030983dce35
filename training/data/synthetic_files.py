"""A synthetic log as files of the kinds that people bring."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl

from .synthetic import SyntheticSpec, synthetic_log


def write_synthetic_files(spec: SyntheticSpec, parquet: Path, csv: Path, text_csv: Path) -> None:
    """Writes the same log as Parquet and CSV of whole numbers, and as CSV with items and times as text."""
    with tempfile.TemporaryDirectory(dir=parquet.parent) as scratch:
        synthetic_log(spec, Path(scratch)).rows.sink_parquet(parquet)
    rows = pl.scan_parquet(parquet)
    rows.sink_csv(csv)
    item = pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9))
    clock = pl.from_epoch("time").dt.strftime("%Y-%m-%d %H:%M:%S+00")
    rows.with_columns(item.alias("item"), clock.alias("time")).sink_csv(text_csv)


def row_count(parquet: Path) -> int:
    """How many rows a Parquet file has."""
    return int(pl.scan_parquet(parquet).select(pl.len()).collect().item())
