"""Counts what is tried, and runs the long form of the tests with --soak."""

from collections import Counter

import pytest

TALLY = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser):
    parser.addoption(
        "--soak", action="store_true", help="thousands of cases, and the tables written"
    )


@pytest.fixture
def tally(record_property):
    """Counts something that was tried and passed."""

    def count(what, number=1):
        record_property(f"tally {what}", number)

    return count


@pytest.fixture(scope="session")
def soak(request):
    return request.config.getoption("--soak")
