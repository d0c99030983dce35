"""Reader for Taobao's UserBehavior: user, item, category, behaviour type, Unix seconds; no header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from nann.errors import ConfigError

from .csv_rows import MALFORMED, split_plain
from .rows import KEEP, MAX_BAD_SHARE, InteractionLog, RowStage, mark_cut
from .sources import BATCH_BYTES, TextBatch, text_batches

BEHAVIOR_TYPES = ("pv", "cart", "fav", "buy")
"""Page view, added to the cart, added to the favourites, purchase."""

_COLUMNS = ("user", "item", "category", "type", "time")
_ADVICE = {"": f"expected {','.join(_COLUMNS)} without a header; `nann prepare log` reads other files"}


def read_user_behavior(
    files: Sequence[Path],
    scratch: Path,
    *,
    behavior_types: Sequence[str] = BEHAVIOR_TYPES,
    max_bad_share: float = MAX_BAD_SHARE,
    batch_bytes: int = BATCH_BYTES,
) -> InteractionLog:
    """Reads UserBehavior's CSV files, gzip or plain, in order.

    Rows of other types than `behavior_types` are left out and counted. A larger share of bad rows than `max_bad_share`
    is refused. `scratch` takes intermediate files, and must stay until the log has been used.

    Raises:
        ConfigError: if a behaviour type is unknown.
        DataError: if a file can't be read, or the log has too many bad rows or no good one.
    """
    unknown = sorted(set(behavior_types) - set(BEHAVIOR_TYPES))
    if unknown or not behavior_types:
        raise ConfigError(f"behaviour types {unknown or 'none'}; expected some of {', '.join(BEHAVIOR_TYPES)}")
    stage = RowStage(scratch, max_bad_share, _ADVICE)
    for path in files:
        time_digits = 0
        for batch in text_batches(path, batch_bytes, fixed=True):
            rows = _parse(batch, time_digits)
            kept = pl.col("type").is_in(list(behavior_types)).alias(KEEP)
            stage.add(path.name, rows.drop("time_digits").with_columns(kept).drop("type"))
            last = rows["time_digits"].tail(1).to_list()
            # After a line without a time there is nothing to compare the next one with.
            time_digits = last[0] or 0 if last else 0
    good, counts = stage.finish()
    settings = {"behavior_types": sorted(behavior_types, key=BEHAVIOR_TYPES.index)}
    return InteractionLog(
        "userbehavior", tuple(str(path) for path in files), good, counts, settings=settings, ticks_per_s=1
    )


def _parse(batch: TextBatch, time_digits: int) -> pl.DataFrame:
    """Casts one batch; `time_digits` is the length of the time in the line before it."""
    texts = pl.col("user", "item", "category", "time").str.strip_chars()
    digits = pl.col("time").str.strip_chars().str.len_bytes().cast(pl.Int64).alias("time_digits")
    fields = split_plain(batch.lines, _COLUMNS, ",")
    checked = fields.with_columns(texts.cast(pl.Int64, strict=False), digits, pl.col("type").str.strip_chars())
    checks = [
        (~(pl.col("user") > 0).fill_null(False), "user is not a positive whole number"),
        (~(pl.col("item") > 0).fill_null(False), "item is not a positive whole number"),
        (pl.col("category").is_null(), "category is not a whole number"),
        (~pl.col("type").is_in(list(BEHAVIOR_TYPES)).fill_null(False), "unknown behaviour type"),
        (pl.col("time").is_null(), "time is not a whole number"),
    ]
    problem = pl.coalesce(MALFORMED, *(pl.when(check).then(pl.lit(reason)) for check, reason in checks))
    rows = checked.with_columns(problem=problem).drop(MALFORMED)
    # A line that is cut inside its last field still has five columns, but a shorter time than the line before.
    return mark_cut(rows, pl.col("time_digits") < time_digits) if batch.unterminated else rows
