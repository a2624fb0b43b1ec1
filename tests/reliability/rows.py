"""What the tables of docs/reliability.md are made of: input, and what comes of it."""

import contextlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


class Outcome(NamedTuple):
    """What a call on hostile input must return, beside what a plain one does."""

    text: str
    holds: Callable[[Any, Any], Any]


class Refused(NamedTuple):
    """The error that it must raise instead, in full or in part."""

    text: str


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
        with pytest.raises(errors, match=re.escape(outcome.text)):
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
    """How a table says it."""
    if isinstance(outcome, Refused):
        return "error: " + outcome.text.replace("|", r"\|").replace("<", r"\<")
    return outcome.text


def table(heads: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def replaced(page: str, name: str, text: str) -> str:
    """The page with the text between the marks of that name replaced."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert len(block.findall(page)) == 1, name
    return block.sub(lambda marks: f"{marks[1]}\n{text}\n{marks[2]}", page)


def replace_on_page(name: str, text: str) -> None:
    """The same on the page itself."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, name, text), encoding="utf-8")
