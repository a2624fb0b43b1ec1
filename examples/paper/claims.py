"""The tables of the pages on the paper, each row with the lines that it rests on.

A page holds a table between two comments, `<!-- table NAME -->` and `<!-- end -->`,
where NAME is that of the setting's picture. What is between them is written anew. With
`.information` after its name, the table is of the information beside the accuracy.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from scipy import stats

from examples.common.report import markdown, mean
from examples.paper.groups import (
    METRIC,
    Group,
    Runs,
    column,
    ends_of,
    final,
    reached,
    rows_of,
)

_PLACE = re.compile(
    r"(<!-- table ([^. ]+)(\.information)? -->\n).*?(<!-- end -->)", re.DOTALL
)


def fill(page: Path, groups: Mapping[Group, Runs]) -> None:
    """Writes the tables of a page anew."""
    named = {group.picture(Path()).stem: group for group in groups}

    def filled(place: re.Match[str]) -> str:
        start, name, kind, end = place.groups()
        told, make = "No row has been run yet.", information if kind else table
        if group := named.get(name):
            told = make(group, groups[group])
        return f"{start}\n{told}\n\n{end}"

    text = page.read_text(encoding="utf-8")
    page.write_text(_PLACE.sub(filled, text), encoding="utf-8")


def information(group: Group, runs: Runs) -> str:
    """Where the information, and where the accuracy, is highest in each run."""
    header = ["", "seed", "I(H; Y) at first, in nats", "highest (epoch)"]
    header += ["accuracy there (%)", "highest accuracy (epoch)", "rank correlation"]
    lines = []
    for row in rows_of(group, runs):
        for run in runs[row.key]:
            mi, accuracy = (column([run], name)[0] for name in ("mi", METRIC))
            most, best = mi.argmax(), accuracy.argmax()
            cells = [row.title, str(run.config["seed"]), f"{mi[0]:.3f}"]
            cells += [f"{mi[most]:.3f} ({most})", f"{accuracy[most]:.2f}"]
            cells += [f"{accuracy[best]:.2f} ({best})"]
            lines.append([*cells, f"{stats.spearmanr(mi, accuracy)[0]:.2f}"])
    return markdown(header, lines)


def table(group: Group, runs: Runs) -> str:
    """Our accuracies beside the paper's, and the lines that hold them."""
    rows = rows_of(group, runs)
    goals = ends_of(group, rows, runs)
    in_paper = any(group.reported(row.name) for row in rows)
    header = ["", "final accuracy (%)"]
    header += ["the paper's", "difference"] if in_paper else []
    header += [f"reaches the end of “{rows[0].title}” at epoch"] if goals else []
    header.append(f"lines of `{group.figure}.jsonl`")
    lines = []
    for row in rows:
        seeds = runs[row.key]
        line = [row.title, mean(final(seeds))]
        if in_paper:
            line += _beside_the_paper(group.reported(row.name), final(seeds).mean())
        if goals:
            line.append(reached(seeds, goals))
        names = [run.about["name"] for run in seeds]
        last = [f"`-{name.rpartition('-')[2]}`" for name in names[1:]]
        lines.append([*line, ", ".join([f"`{names[0]}`", *last])])
    return markdown(header, lines)


def _beside_the_paper(reported: str, ours: float) -> list[str]:
    if not reported:
        return ["", ""]
    theirs = reported.split()[0]
    return [theirs, f"{round(ours - float(theirs), 2) + 0.0:+.2f}"]  # no minus zero
