"""The page on the paper: its tables, and the numbers of its first one."""

import re

import numpy as np
import pages
import pytest

import optax_mi
from examples.common.results import Result, recorded
from examples.paper import claims
from examples.paper.experiments import score
from examples.paper.groups import METRIC, Group, column
from tests.benchmarks.controllers.report import compared
from tests.benchmarks.controllers.run import results

RESULTS = pages.DOCS / "results"
FIGURE3 = Group("figure3", "classic", "mnist", 60_000, 2, 100)


def result(row, seed, mi, accuracy):
    history = optax_mi.MIHistory()
    for epoch, (nats, percent) in enumerate(zip(mi, accuracy, strict=True)):
        history.add(epoch=epoch, learning_rate=0.1, mi=nats, **{METRIC: percent})
    about = {"name": f"{row}-classic-{seed}", "config": {"seed": seed}}
    return Result(about, history)


RUNS = {
    "fixed": [
        result("fixed", 0, [1.0, 2.0, 2.1], [50.0, 98.0, 97.0]),
        result("fixed", 1, [1.0, 2.0, 2.1], [60.0, 98.0, 98.0]),
    ],
    "stable": [result("stable", 1, [1.5, 2.2, 2.1], [97.0, 98.5, 99.0])],
}


def test_a_row_has_its_accuracy_the_paper_s_and_its_lines():
    head, _, fixed, stable = claims.table(FIGURE3, RUNS).splitlines()
    assert head.endswith(
        "| reaches the end of “fixed 0.01” at epoch | lines of `figure3.jsonl` |"
    )
    names = "`fixed-classic-0`, `-1`"
    assert fixed == f"| fixed 0.01 | 97.50 ± 0.71 | 98.94 | -1.44 | 1, 1 | {names} |"
    assert stable == "| default policy | 99.00 |  |  | 1 | `stable-classic-1` |"


def test_runs_on_a_part_of_the_images_have_no_number_of_the_paper():
    part = FIGURE3._replace(train_size=12_000)
    assert FIGURE3.reported("fixed").startswith("98.94")
    assert part.reported("fixed") == ""
    fixed = claims.table(part, RUNS).splitlines()[2]
    assert fixed.startswith("| fixed 0.01 | 97.50 ± 0.71 | 1, 1 |")


def test_information_is_put_beside_the_accuracy():
    *_, stable = claims.information(FIGURE3, RUNS).splitlines()
    cells = "1.500 | 2.200 (1) | 98.50 | 99.00 (2) | 0.50"
    assert stable == f"| default policy | 1 | {cells} |"


def test_tables_are_put_where_the_page_has_them(tmp_path):
    page = tmp_path / "page.md"
    places = ("figure3-classic-mnist-60000-2x100", "figure9-none")
    place = "<!-- table {} -->\nold\n<!-- end -->"
    page.write_text("\n".join(["before", *map(place.format, places), "after"]))
    for _ in range(2):  # the second time nothing changes
        claims.fill(page, {FIGURE3: RUNS})
        text = page.read_text()
        assert claims.table(FIGURE3, RUNS) in text
        assert "old" not in text
        assert text.count("No row has been run yet.") == 1
        assert text.startswith("before\n<!-- table")
        assert text.endswith("<!-- end -->\nafter")


with_results = pytest.mark.skipif(
    not RESULTS.exists(), reason="the sdist leaves them out"
)


@with_results
def test_the_lead_over_untuned_methods_is_that_of_the_controllers_runs():
    methods = ("wsd", "dog", "prodigy")
    pairs = {
        pair: [row.regrets[method].mean() for method in methods]
        for pair, row in compared(results(RESULTS / "controllers.jsonl")).items()
        if pair[0] != "transformer"
    }
    assert len(pairs) == 24
    wrong = [pairs[pair] for pair in pairs if pair[0].startswith("mnist_wrong")]
    others = [pairs[pair] for pair in pairs if not pair[0].startswith("mnist_wrong")]
    assert (len(wrong), len(others)) == (6, 18)
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    for title, rows in (
        ("six pairs with wrong labels", wrong),
        ("the other 18", others),
    ):
        means = " | ".join(f"{mean:.2f}" for mean in np.mean(rows, axis=0))
        assert f"| {title} | {means} |" in page
    for rows, leads in ((pairs.values(), [16, 16]), (others, [10, 10])):
        ours, *untuned = np.array(list(rows)).T
        assert [(ours < theirs).sum() for theirs in untuned] == leads


def runs_of(figure, pattern):
    path = RESULTS / f"{figure}.jsonl"
    found = [r for r in recorded(path) if re.fullmatch(pattern, r.about["name"])]
    assert found
    return found


def page():
    """The page, each run of white space as one space."""
    return " ".join((RESULTS / "README.md").read_text(encoding="utf-8").split())


def five_epochs(figure, name):
    (run,) = runs_of(figure, re.escape(name))
    return f"{100 * score(column([run], 'accuracy')[0]):.2f}"


@with_results
def test_means_of_the_last_five_epochs_are_those_of_the_runs():
    data, half = "classic-cifar10-50000-50x100-0", "allcnn-half-cifar10-45000-25x100-0"
    training, held_out = (
        five_epochs("figure4", f"{row}-{data}") for row in ("stable", "stable_held_out")
    )
    assert (
        f"it has {training} % on average, and the held-out probe {held_out}" in page()
    )
    default, fixed, schedule = (
        five_epochs("cifar_allcnn", f"{row}-{half}")
        for row in ("stable_held_out", "fixed_low", "decayed_low")
    )
    means = (
        f"{default} % on average, the fixed rate {fixed} and the schedule {schedule}"
    )
    assert means in page()


@with_results
@pytest.mark.parametrize(
    ("figure", "pattern", "usual", "whole"),
    [
        ("figure3", ".*-classic-mnist.*", "0.8 to 2.1 %", ""),
        ("figure3", "stable.*-classic-mnist.*", "", "1.3 to 3.4 %"),
        ("figure5", "(?!base).*-classic-mnist.*", "0.4 to 0.9 %", ""),
        ("figure5", "stable-classic-mnist.*", "", "0.6 to 1.1 %"),
        ("figure6", "layerwise_stable-classic.*", "7.3 to 8.7 %", "10.0 to 10.6 %"),
        ("figure6", "layerwise_stable-small.*", "32.7 to 42.3 %", "41.3 to 45.7 %"),
        ("figure4", ".*-classic-cifar10.*-50x100-0", "1.5 to 1.7 %", ""),
        ("figure4", "stable.*-classic-cifar10.*", "", "2.3 %"),
        ("baselines", "stable.*-cifar10-.*", "3.4 to 3.8 %", "4.5 to 5.3 %"),
        ("figure4", ".*-small-cifar10-10000.*", "3.4 to 5.5 %", ""),
        ("figure4", "stable.*-small-cifar10-10000.*", "", "4.3 to 6.9 %"),
        ("baselines", "stable.*-mnist-12000.*", "4.3 to 5.1 %", "5.6 to 6.7 %"),
        ("figure6", "single-small-mnist-12000.*", "3.7 to 4.0 %", "5.0 to 5.6 %"),
    ],
)
def test_costs_are_those_of_the_runs(figure, pattern, usual, whole):
    runs = runs_of(figure, pattern)
    train, measure = (column(runs, f"{part}_seconds") for part in ("train", "measure"))
    for told, reduce in ((usual, np.median), (whole, np.sum)):
        shares = 100 * reduce(measure, axis=1) / reduce(train, axis=1)
        if told:
            ends = dict.fromkeys(f"{x:.1f}" for x in (shares.min(), shares.max()))
            assert " to ".join(ends) + " %" == told
            assert f"| {told} |" in page()


@with_results
def test_the_more_compressed_layer_of_digits_is_rarely_the_more_accurate():
    counts = []
    for run in runs_of("compression", "compression-small-digits.*"):
        fixed, default = (run.about["methods"][name] for name in ("fixed", "stable"))
        apart = {
            name: np.subtract.outer(np.array(one), np.array(other))
            for name, one, other in (
                ("mi", fixed["mi"]["Dense_0"], default["mi"]["Dense_0"]),
                ("x", fixed["mi_inputs"]["Dense_0"], default["mi_inputs"]["Dense_0"]),
                ("accuracy", fixed["accuracy"], default["accuracy"]),
            )
        }
        level = abs(apart["mi"]) < 0.005
        better = apart["x"] * apart["accuracy"] < 0
        counts.append(f"{(level & better).sum()} of {level.sum()}")
    assert "{}, {} and {} such pairs".format(*counts) in page()


def sections_of(page):
    text = (RESULTS / page).read_text(encoding="utf-8")
    return re.split(r"^(?=## )", text, flags=re.MULTILINE)


@with_results
def test_every_number_of_the_first_table_stands_in_what_the_row_rests_on():
    sections = sections_of("README.md")
    (first,) = (part for part in sections if part.startswith("## Does it help?"))
    rows = [line for line in first.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 10
    for row in rows:
        _, question, answer, links, _ = row.split("|")
        told = "".join(
            linked(sections, link) for link in re.findall(r"\((.*?)\)", links)
        )
        numbers = re.findall(r"\d+(?:[.,]\d+)*", answer)
        missing = [
            number
            for number in map(re.escape, numbers)
            if not re.search(rf"(?<![\d.]){number}(?![\d.]*\d)", told)
        ]
        assert not missing, (question, missing)


def linked(sections, link):
    """The section that a link leads to, of this page or another."""
    path, _, anchor = link.partition("#")
    if path:
        sections = sections_of(path)
    (section,) = (part for part in sections if slug(part.splitlines()[0]) == anchor)
    return section


def slug(heading):
    words = re.sub(r"[^\w\s-]", "", heading.lstrip("# ").lower())
    return words.replace(" ", "-")
