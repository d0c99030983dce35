"""How a log is read: the options that `nann prepare log` and `nann events` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .prepare_output import names_of

if TYPE_CHECKING:
    from ..training.data.csv_rows import TextFormat


def panel_option(panel: str, about: str, *names: str) -> Any:
    """An option in a panel of `--help`."""
    return typer.Option(*names, help=about, rich_help_panel=panel)


COLUMNS, _EVENTS, _VALUES = "Columns", "Which events count", "How values are written"

UserOption = Annotated[str, panel_option(COLUMNS, "The user: a number or text.")]
ItemOption = Annotated[str, panel_option(COLUMNS, "The item: a number or text.")]
BasketOption = Annotated[str | None, panel_option(COLUMNS, "The basket or session.")]
HeaderOption = Annotated[
    str,
    panel_option(COLUMNS, "Names of the columns of text files without a header, separated by commas.", "--columns"),
]
EventColumnOption = Annotated[str | None, panel_option(_EVENTS, "Column with the type of the event.")]
EventsOption = Annotated[str, panel_option(_EVENTS, "Types to keep, separated by commas.", "--events")]
ValueColumnOption = Annotated[str | None, panel_option(_EVENTS, "Column with a number, such as a rating.")]
MinValueOption = Annotated[float | None, panel_option(_EVENTS, "The least number to keep.")]
ItemIdsOption = Annotated[
    str, panel_option(_VALUES, "number, text, or auto: numbers if all are whole ones from 1 to 2^63 - 1.")
]
TimeFormatOption = Annotated[
    str | None, panel_option(_VALUES, "Of times that are no numbers and not ISO 8601, such as '%d.%m.%Y %H:%M'.")
]
NullOption = Annotated[
    list[str] | None, panel_option(_VALUES, "A text that stands for a missing value, such as NULL; may be repeated.")
]
SeparatorOption = Annotated[
    str, panel_option(_VALUES, "Between the fields of a CSV; 'tab' for a tab. Default: found from the header.")
]
EncodingOption = Annotated[str, panel_option(_VALUES, "Of text files: latin-1, cp1252, utf-16, ...")]
QuoteOption = Annotated[str, panel_option(_VALUES, "Around fields of a CSV; '' if quotes are text.")]
EscapeOption = Annotated[str, panel_option(_VALUES, "Makes the next character text, such as '\\\\'. Default: none.")]


def text_format(
    separator: str, columns: str, encoding: str, quote: str, escape: str, null: list[str] | None
) -> TextFormat:
    """What these options say of text files.

    Raises:
        ConfigError: if one of them can't be used.
    """
    from ..training.data.csv_rows import TextFormat

    mark = "\t" if separator in ("tab", "\\t") else separator
    return TextFormat(mark, names_of(columns), encoding, quote, escape, tuple(null or ()))
