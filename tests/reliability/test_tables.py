"""The page has the tables that the tests hold to; `make soak` writes them."""

import re
from pathlib import Path

import test_hostile_arrays
import test_hostile_capture
import test_hostile_control
import test_hostile_labels
from generated import SOAK

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
TABLES = {
    name: table
    for module in (
        test_hostile_arrays,
        test_hostile_labels,
        test_hostile_control,
        test_hostile_capture,
    )
    for name, table in module.tables().items()
}


def replaced(page, name, text):
    """The page with the text between the marks of that name replaced."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert len(block.findall(page)) == 1, name
    return block.sub(lambda marks: f"{marks[1]}\n{text}\n{marks[2]}", page)


def test_the_page_has_the_rows_that_are_tested():
    page = PAGE.read_text(encoding="utf-8")
    expected = page
    for name, table in TABLES.items():
        expected = replaced(expected, name, table)
    if SOAK:
        PAGE.write_text(expected, encoding="utf-8")
    else:
        assert page == expected
