"""Counts what is tried: `make soak` prints and writes it, with the tables."""

from collections import Counter

import generated
import pytest


@pytest.fixture
def tally(record_property):
    """Counts something that was tried; it counts where the test passes."""

    def count(what, number=1):
        record_property("tally", (what, number))

    return count


@pytest.fixture(autouse=True)
def _count_generated_cases(tally):
    before = Counter(generated.CASES)
    yield
    for what, number in (generated.CASES - before).items():
        tally(what, number)


def pytest_terminal_summary(terminalreporter):
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "tally":
                counts[value[0]] += value[1]
    for what, number in counts.items():
        terminalreporter.write_line(f"{what}: {number:,}")
