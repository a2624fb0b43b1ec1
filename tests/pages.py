"""The programs that stand in the documentation."""

import pathlib
import re

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def programs(page):
    """The Python programs of one page, in their order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def cells(page):
    """The code cells of one page, which its build runs, in their order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```\{code-cell\} ipython3\n(.*?)```", text, re.DOTALL)
