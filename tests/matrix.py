"""Runs the tests on every Python and with the oldest and newest packages allowed.

    make test-matrix                               all that this machine can
    make test-matrix ONLY="3.13-newest" PYTEST_ARGS="-n 4 tests/test_ksg.py"

The oldest are the lower bounds in pyproject.toml, those of the extras that users
install included. Each environment is made once, in .venv-matrix, and made again where
pyproject.toml has changed.
"""

import argparse
import glob
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PYPROJECT = ROOT / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text())["project"]
EXTRAS_OF_USERS = ("plot", "tensorboard")
SHOWN = ("jax", "optax", "flax", "numpy")

# The oldest packages go with the oldest Python.
ENVIRONMENTS = {
    "3.11-oldest": ("3.11", "oldest"),
    "3.11-newest": ("3.11", "newest"),
    "3.12-newest": ("3.12", "newest"),
    "3.13-newest": ("3.13", "newest"),
}


def interpreter(version: str) -> str | None:
    """A Python of this version that starts, from the PATH or a version manager."""
    managed = os.path.expanduser(f"~/.*/versions/{version}*/bin/python")
    for candidate in (shutil.which(f"python{version}"), *sorted(glob.glob(managed))):
        if (
            candidate
            and not subprocess.run(
                [candidate, "-c", "import venv"], capture_output=True
            ).returncode
        ):
            return candidate
    return None


def lower_bounds() -> list[str]:
    """The requirements of users, each pinned to the oldest release allowed."""
    requirements = list(PROJECT["dependencies"])
    for extra in EXTRAS_OF_USERS:
        requirements += PROJECT["optional-dependencies"][extra]
    return [
        re.sub(r">=([^,;\s]+).*", r"==\1", requirement) for requirement in requirements
    ]


def environment(name: str, python: str, age: str) -> str:
    """Makes an environment where it is missing or stale; its interpreter."""
    folder = ROOT / ".venv-matrix" / name
    inside, stamp = str(folder / "bin" / "python"), folder / "pyproject.toml"
    if stamp.exists() and stamp.read_text() == PYPROJECT.read_text():
        return inside
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    pip = [inside, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    pins = lower_bounds() if age == "oldest" else []
    subprocess.run(
        [*pip, "--editable", ".[examples,tensorboard]", "--group", "tests", *pins],
        check=True,
        cwd=ROOT,
    )
    shutil.copy(PYPROJECT, stamp)
    return inside


def versions(python: str) -> str:
    """Which packages the tests ran with."""
    code = f"import importlib.metadata as m; print(*map(m.version, {SHOWN}))"
    numbers = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    return ", ".join(
        f"{name} {number}" for name, number in zip(SHOWN, numbers, strict=True)
    )


def main() -> int:
    """Prints a line for each environment; 1 where one failed or none could run."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, default=ENVIRONMENTS)
    parser.add_argument("--pytest-args", type=shlex.split, default=[])
    options = parser.parse_args()
    lines, failed, ran = [], False, 0
    for name in options.only:
        version, age = ENVIRONMENTS[name]
        if not (python := interpreter(version)):
            lines.append(f"{name}: not run, there is no Python {version} here")
            continue
        python = environment(name, python, age)
        print(f"{name}: {versions(python)}", flush=True)
        start = time.monotonic()
        status = subprocess.run(
            [python, "-m", "pytest", "-p", "no:cacheprovider", *options.pytest_args],
            cwd=ROOT,
        ).returncode
        minutes = (time.monotonic() - start) / 60
        outcome = "FAILED" if status else "passed"
        lines.append(f"{name}: {outcome} in {minutes:.0f} min, {versions(python)}")
        failed, ran = failed or status != 0, ran + 1
    print("\n".join(["", *lines]))
    return int(failed or not ran)


if __name__ == "__main__":
    sys.exit(main())
