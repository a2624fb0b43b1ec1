"""The rows of the tables in docs/reliability_tables.md: an input, and its result."""

import contextlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reliability_tables.md"


class Outcome(NamedTuple):
    """What a call on hostile input must return, given what a plain input returns."""

    text: str
    holds: Callable[[Any, Any], Any]


class Refused(NamedTuple):
    """The error that it must raise instead.

    The text is the message, or its end; "…" stands for any characters.
    """

    text: str

    @property
    def pattern(self) -> str:
        """A regular expression that the message must match."""
        parts = (re.escape(part) for part in self.text.split("…"))
        # JAX appends a paragraph about its traceback to some.
        return rf"(?ms){'.*'.join(parts)}\.?$"


NAN = Outcome("NaN", lambda found, plain: np.isnan(found))
NUMBER = Outcome("a number", lambda found, plain: np.isfinite(found))
ZERO = Outcome("0", lambda found, plain: np.abs(found) < 0.02)
SAME = Outcome("unchanged", lambda found, plain: np.abs(found - plain) < 2e-3)
MINUS_INFINITY = Outcome("-inf", lambda found, plain: found == -np.inf)


def check(outcome: Outcome | Refused, call: Callable[[], Any], plain: Any = np.nan):
    """Whether a call does what its row says; it may warn of what it was given."""
    if isinstance(outcome, Refused):
        # JAX's own error, of an array that is gone, is a RuntimeError.
        errors = (ValueError, RuntimeError)
        with pytest.raises(errors, match=outcome.pattern):
            call()
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered in cast")
        for told in (
            "cannot tell apart",
            "taken for real numbers",
            "alone in theirs",
            "rate does not move",
        ):
            warnings.filterwarnings("ignore", f".*{told}", UserWarning)
        found = numbers(call())
    assert np.all(outcome.holds(found, numbers(plain))), (found, plain)


@contextlib.contextmanager
def naming(row: Any):
    """Names the row in whose check a test fails that goes through several."""
    try:
        yield
    except BaseException as error:  # pytest's own is no Exception
        error.add_note(f"row: {row}")
        raise


def numbers(values: Any) -> np.ndarray:
    """All numbers of a result in one array."""
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(values)]
    return np.concatenate(leaves).astype(np.float64)


def cell(outcome: Outcome | Refused) -> str:
    """An outcome as the cell of a table."""
    if isinstance(outcome, Refused):
        return f"error: {message(outcome)}"
    return outcome.text


def message(refused: Refused) -> str:
    """The text of an error, in Markdown."""
    return refused.text.replace("|", r"\|").replace("<", r"\<")


def table(heads: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def result_table(
    head: str, columns: list[str], rows: dict[str, list[Outcome | Refused | None]]
) -> str:
    """What calls return: a line for each row in which one of them returns something."""

    def text(outcome: Outcome | Refused | None) -> str:
        if outcome is None:
            return ""
        return "error" if isinstance(outcome, Refused) else outcome.text

    lines = [
        [row, *map(text, outcomes)]
        for row, outcomes in rows.items()
        if any(isinstance(outcome, Outcome) for outcome in outcomes)
    ]
    return table([head, *(f"`{column}`" for column in columns)], lines)


def error_table(
    head: str, columns: list[str], rows: dict[str, list[Outcome | Refused | None]]
) -> str:
    """The errors: a line for each row and message, with the columns that raise it."""
    lines = []
    for row, outcomes in rows.items():
        raised: dict[str, list[str]] = {}
        for column, outcome in zip(columns, outcomes, strict=True):
            if isinstance(outcome, Refused):
                raised.setdefault(message(outcome), []).append(f"`{column}`")
        for text, where in raised.items():
            everywhere = len(where) == len(columns)
            lines.append([row, "all" if everywhere else ", ".join(where), text])
    return table([head, "raised by", "message"], lines)


def replaced(page: str, name: str, text: str) -> str:
    """The page with the text between the marks of that name replaced."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert len(block.findall(page)) == 1, name
    return block.sub(lambda marks: f"{marks[1]}\n{text}\n{marks[2]}", page)


def replace_on_page(name: str, text: str) -> None:
    """The same on the page itself."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, name, text), encoding="utf-8")
