"""What is built installs into an empty environment and needs nothing else there."""

import email
import json
import pathlib
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

ESTIMATE = """
import json, sys
import numpy as np, optax, optax_mi
labels = np.arange(60) % 3
mi = float(optax_mi.ksg_discrete(labels + np.linspace(0, 0.1, 60), labels))
tx = optax.chain(optax.sgd(1.0), optax_mi.mi_dynamic_lr(1e-3, 0.1))
rates = optax_mi.learning_rates(tx.init({"w": np.zeros(2)}))
print(json.dumps([optax_mi.__file__, optax_mi.__version__, mi, rates]))
"""


def run(*command, **options):
    answer = subprocess.run(command, capture_output=True, text=True, **options)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with a wheel and an sdist, as they would be published."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.mark.e2e
def test_the_wheel_has_the_package_alone_and_says_what_it_is(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        told = email.message_from_string(archive.read(metadata).decode())
    sources = {
        f"optax_mi/{path.relative_to(ROOT / 'optax_mi')}"
        for path in (ROOT / "optax_mi").rglob("*.py")
    }
    assert sources | {"optax_mi/py.typed"} == {
        name for name in names if ".dist-info/" not in name
    }
    assert told["Version"] == PROJECT["version"]
    assert told["Requires-Python"] == PROJECT["requires-python"]
    assert told["License-Expression"] == "Apache-2.0"
    needed = [r for r in told.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert sorted(needed) == sorted(PROJECT["dependencies"])


@pytest.mark.e2e
def test_the_sdist_has_what_the_wheel_is_made_from_and_what_tests_it(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "CITATION.cff",
        "tests/twins.py",
    ):
        assert needed in names
    assert not [name for name in names if name.endswith((".npy", ".npz", ".pyc"))]
    assert not [name for name in names if name.startswith("docs/results")]


@pytest.mark.e2e
def test_both_install_and_run_with_the_runtime_dependencies_alone(built, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "empty")
    python = tmp_path / "empty" / "bin" / "python"
    for kind in ("*.whl", "*.tar.gz"):
        (package,) = built.glob(kind)
        install = (python, "-m", "pip", "install", "--quiet")
        run(*install, package)
        run(*install, "--force-reinstall", "--no-deps", package)
        printed = run(python, "-W", "error", "-c", ESTIMATE, cwd=tmp_path)
        file, version, mi, rates = json.loads(printed)
        assert pathlib.Path(file).is_relative_to(tmp_path / "empty")
        assert version == PROJECT["version"]
        assert mi == pytest.approx(1.0986, abs=0.03)  # log 3: classes do not overlap
        assert rates == {"": pytest.approx(1e-3)}
        assert "estimate" in run(python, "-m", "optax_mi", "--help", cwd=tmp_path)
        told = run(python.with_name("optax-mi"), "--version", cwd=tmp_path)
        assert told == f"optax-mi {version}\n"


def test_dependencies_have_lower_bounds_and_no_upper_ones():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    requirements = [
        r for group in groups for r in group if not r.startswith("optax_mi")
    ]
    assert len(requirements) > 8
    for requirement in requirements:
        assert ">=" in requirement, requirement
        assert not set("<=~!") & set(requirement.replace(">=", "")), requirement


def test_tests_reach_no_network():
    with pytest.raises(OSError, match="Tests use no network"):
        urllib.request.urlopen("http://192.0.2.1", timeout=5)


def test_a_release_is_audited():
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    audit = workflow.index("pip-audit")
    assert audit < workflow.index("uv publish")
