"""The notebooks as they are committed; `make notebooks` runs them, and CI calls it."""

import json
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_five_and_the_site_has_each():
    names = {path.stem for path in NOTEBOOKS}
    index = (ROOT / "docs" / "index.md").read_text()
    assert set(re.findall(r"^notebooks/(\w+)$", index, re.MULTILINE)) == names
    assert len(names) == 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_opens_in_colab_and_installs_there_alone(path):
    title, install, *_ = ("".join(cell["source"]) for cell in cells(path))
    repository = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    assert title.startswith("# ")
    assert (
        f"colab.research.google.com/github/{repository}/blob/main/examples/notebooks/"
        f"{path.name}" in title
    )
    assert 'if "google.colab" in sys.modules:' in install
    assert f"git+https://github.com/{repository}" in install


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_without_what_it_printed(path):
    for cell in cells(path):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
