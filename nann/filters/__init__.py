"""Filters: which items may be shown, said in a small language about the items' attributes (docs/filters.md).

`parse` reads a filter, `where` builds one in Python, a `Catalogue` compiles it to the set of items that match, and
`NamedFilters` are the filters that an operator has named.
"""

from .build import where
from .catalogue import Catalogue
from .named import NamedFilters, ServedFilters
from .parser import parse
from .predicate import Predicate

__all__ = ["Catalogue", "NamedFilters", "Predicate", "ServedFilters", "parse", "where"]
