"""Counts what is tried. `make soak` writes the counts to reliability_tables.md."""

import os
import platform
from collections import Counter

import generated
import jax
import pytest
import rows


@pytest.fixture
def tally(record_property):
    """Counts something that was tried, if the test passes."""

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
    # All that a test has told comes with its teardown, which has no category.
    for report in terminalreporter.stats.get("", []):
        for name, value in report.user_properties if report.when == "teardown" else ():
            if name == "tally":
                counts[value[0]] += value[1]
    failed = len(terminalreporter.stats.get("failed", []))
    lines = [f"| {what} | {number:,} |" for what, number in sorted(counts.items())]
    for line in lines:
        terminalreporter.write_line(line)
    options = terminalreporter.config.option
    folder = terminalreporter.config.args == ["tests/reliability"]
    whole = folder and not options.keyword and not options.markexpr
    if generated.SOAK and whole and counts and not failed:
        text = (
            "| what was tried | number |\n| --- | --- |\n"
            + "".join(f"{line}\n" for line in lines)
            + f"\n`make soak`, jax {jax.__version__}, Python "
            f"{platform.python_version()}, {os.cpu_count()} cores; none failed.\n"
        )
        rows.replace_on_page("counts", text)
