"""Changes the code in one place at a time, for its tests to notice.

    make mutants                      an hour on two cores; started again, it goes on
    make mutants ONLY=_policies

cosmic-ray makes the changes, in a copy of the tree. Those that no test notices are
tried again each time, unless survivors.py says why none could. Where it quotes a line
that no longer stands, nothing is tried. A change to a file starts its session anew.
The results go into docs/reliability_tables.md.
"""

import argparse
import ast
import hashlib
import os
import platform
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import rows
from survivors import SURVIVORS, before

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "runs" / "mutants"
GENERATED = "tests/reliability/test_generated_control.py"
MEMORY = "tests/reliability/test_generated_memory.py"
HOSTILE = (
    "tests/reliability/test_hostile_control.py",
    "tests/reliability/test_hostile_parameters.py",
)

# The files that no change may slip past, and tests that are fast and likely to notice.
TARGETS = {
    "optax_mi/_rate.py": ("tests/test_transform.py", GENERATED, *HOSTILE),
    "optax_mi/_going_back.py": (
        "tests/test_going_back.py",
        "tests/test_losses.py",
        MEMORY,
    ),
    "optax_mi/_warmup_stable_decay.py": ("tests/test_warmup_stable_decay.py", MEMORY),
    "optax_mi/_estimators/_neighbours/tiles.py": ("tests/test_tiles.py",),
    "optax_mi/_estimators/_neighbours/distances.py": ("tests/test_distances.py",),
    "optax_mi/_layerwise.py": ("tests/test_layerwise.py", GENERATED, *HOSTILE),
    "optax_mi/_policies.py": ("tests/test_policies.py", GENERATED),
}

# Seconds. An endless loop is noticed too; the slowest of these tests take a minute, and
# on a busy machine two.
TIMEOUT = 300

# Of all that an operator may become, its opposite and its neighbour: any test notices
# the others, such as << for +.
KEPT = re.compile(
    r"core/(?!Replace(Binary|Comparison|Unary)Operator_)"
    r"|.*_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Mul|Pow_Mul|LShift_RShift"
    r"|RShift_LShift|BitAnd_BitOr|BitOr_BitAnd|Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|LtE_Lt"
    r"|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|Is_IsNot|IsNot_Is|Delete_\w+)$"
)


class Result(NamedTuple):
    """What came of the changes to one file."""

    module: str
    made: int
    noticed: int
    survivors: list[str]


def changed(before: str, after: str) -> str:
    """The line as it was with its change marked, as in ``x ⟦> → >=⟧ 0``."""
    tokens = re.compile(r"\w+|<<|>>|//|\*\*|[<>=!]=|\S")
    old, new = (list(tokens.finditer(line)) for line in (before, after))
    a, b = ([token[0] for token in line] for line in (old, new))
    same = len(os.path.commonprefix([a, b]))
    rest = len(os.path.commonprefix([a[same:][::-1], b[same:][::-1]]))
    removed, added = old[same : len(old) - rest], new[same : len(new) - rest]
    start = old[same].start() if same < len(old) else len(before)
    end = removed[-1].end() if removed else start
    other = after[added[0].start() : added[-1].end()] if added else ""
    return f"{before[:start]}⟦{before[start:end]} → {other}⟧{before[end:]}"


def survivors(database: sqlite3.Connection) -> dict[str, str]:
    """The changes that no test noticed, by job."""
    found = {}
    for job, diff in database.execute(
        "SELECT job_id, diff FROM work_results WHERE test_outcome = 'SURVIVED'"
    ):
        body = [line for line in diff.splitlines() if line[:3] not in ("---", "+++")]
        before, after = (
            " ".join(line[1:].strip() for line in body if line.startswith(sign))
            for sign in "-+"
        )
        found[job] = changed(before.strip(), after.strip())
    return found


def annotations(code: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where annotations go, which nothing evaluates."""
    found = []
    for node in ast.walk(ast.parse(code)):
        for field in ("annotation", "returns"):
            if part := getattr(node, field, None):
                end = part.end_lineno, part.end_col_offset
                found.append(((part.lineno, part.col_offset), end))
    return found


class Session:
    """The mutants of one file, in a copy of the tree."""

    def __init__(self, module: str):
        code = (ROOT / module).read_bytes()
        name = f"{Path(module).stem}-{hashlib.sha256(code).hexdigest()[:8]}"
        self.module, self.copy = module, RUNS / name
        self.config, self.path = RUNS / f"{name}.toml", RUNS / f"{name}.sqlite"

    def run(self) -> Result:
        """Tries those that are still to be tried."""
        self.prepare()
        if not self.path.exists():
            self.make()
        with sqlite3.connect(self.path) as database:
            database.execute(
                "DELETE FROM work_results WHERE test_outcome NOT IN"
                " ('KILLED', 'SURVIVED')"
            )
            for job, line in survivors(database).items():
                if line not in explained(self.module):
                    database.execute("DELETE FROM work_results WHERE job_id = ?", [job])
        self.cosmic_ray("exec", self.path)
        with sqlite3.connect(self.path) as database:
            (made,) = database.execute("SELECT count(*) FROM work_items").fetchone()
            (noticed,) = database.execute(
                "SELECT count(*) FROM work_results WHERE test_outcome = 'KILLED'"
            ).fetchone()
            left = sorted(survivors(database).values())
            return Result(self.module, made, noticed, left)

    def prepare(self) -> None:
        """Copies the tree, and sees the tests pass on it as it is."""
        shutil.rmtree(self.copy, ignore_errors=True)
        for folder in ("optax_mi", "tests"):
            without = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / folder, self.copy / folder, ignore=without)
        shutil.copy(ROOT / "pyproject.toml", self.copy)
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command = [*pytest, *TARGETS[self.module]]
        subprocess.run(command, cwd=self.copy, check=True)
        self.config.write_text(
            f'[cosmic-ray]\nmodule-path = "{self.module}"\ntimeout = {TIMEOUT}.0\n'
            f"excluded-modules = []\ntest-command = {shlex.join(command)!r}\n"
            '[cosmic-ray.distributor]\nname = "local"\n'
        )

    def make(self) -> None:
        """Chooses among the mutants that cosmic-ray knows."""
        begun = self.path.with_suffix(".begun")  # not to go on from half of it
        begun.unlink(missing_ok=True)
        self.cosmic_ray("init", begun)
        skipped = annotations((ROOT / self.module).read_text())
        with sqlite3.connect(begun) as database:
            for job, operator, *place in database.execute(
                "SELECT job_id, operator_name, start_pos_row, start_pos_col"
                " FROM mutation_specs"
            ).fetchall():
                inside = any(start <= tuple(place) < end for start, end in skipped)
                if inside or not KEPT.match(operator):
                    for table in ("mutation_specs", "work_items"):
                        database.execute(f"DELETE FROM {table} WHERE job_id = ?", [job])
        begun.rename(self.path)

    def cosmic_ray(self, command: str, session: Path) -> None:
        """Runs the program of that name beside this Python."""
        program = Path(sys.executable).with_name("cosmic-ray")
        subprocess.run(
            [program, command, self.config, session], cwd=self.copy, check=True
        )


def explained(module: str) -> set[str]:
    """The survivors of a module of which survivors.py says why."""
    return {line for lines in SURVIVORS.get(module, {}).values() for line in lines}


def moved(module: str) -> list[str]:
    """The explained survivors whose line no longer stands in the file."""
    lines = (ROOT / module).read_text(encoding="utf-8").splitlines()
    standing = set(map(str.strip, lines))
    return [line for line in sorted(explained(module)) if before(line) not in standing]


def problems(result: Result) -> list[str]:
    """What is to be done about a file."""
    left, known = set(result.survivors), explained(result.module)
    lines = [f"survives: {line}" for line in sorted(left - known)]
    lines += [f"no longer survives: {line}" for line in sorted(known - left)]
    if untried := result.made - result.noticed - len(result.survivors):
        lines.append(f"came to nothing: {untried}")
    if 10 * result.noticed < 9 * result.made:
        lines.append("less than 90 % are noticed")
    return lines


def table(results: list[Result]) -> str:
    """The table of all files in docs/reliability_tables.md."""
    lines = sorted((f"`{r.module}`", r.made, r.noticed) for r in results)
    lines.append(("all", sum(r.made for r in results), sum(r.noticed for r in results)))
    cells = [
        [name, f"{made}", f"{noticed}", f"{noticed / made:.1%}", f"{made - noticed}"]
        for name, made, noticed in lines
    ]
    heads = ["file", "changes", "noticed", "share", "survivors, below"]
    python = platform.python_version()
    return f"{rows.table(heads, cells)}\n`make mutants`, Python {python}.\n"


def main() -> int:
    """Runs the sessions, two at a time on two cores."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], metavar="FILE")
    only = parser.parse_args().only
    sessions = [Session(m) for m in TARGETS if any(name in m for name in only)]
    if stale := [f"{s.module}: {line}" for s in sessions for line in moved(s.module)]:
        print("survivors.py explains changes to lines that are gone:", *stale, sep="\n")
        return 1
    RUNS.mkdir(parents=True, exist_ok=True)
    # A file of bytecode cannot tell two changes within a second apart.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(Session.run, sessions))
    if len(results) == len(TARGETS):
        rows.replace_on_page("mutants", table(results))
    print(table(results))
    found = {result.module: problems(result) for result in results}
    for module, lines in found.items():
        for line in lines:
            print(f"{module}: {line}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
