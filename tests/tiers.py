"""Which rows of a table the quick tier runs: `make test` those, `make test-all` all."""

from collections.abc import Iterable

import pytest


def quick(rows: Iterable[str], *kept: str) -> list:
    """The names of a table's rows, those that are not kept marked slow."""
    rows = list(rows)
    assert set(kept) <= set(rows), set(kept) - set(rows)
    return [
        row if row in kept else pytest.param(row, marks=pytest.mark.slow)
        for row in rows
    ]
