"""Rules that the code keeps as a whole."""

import ast
import inspect
import pathlib
import subprocess
import sys

import pytest

import optax_mi

ROOT = pathlib.Path(optax_mi.__file__).parent

# Imports run one way, down this list (DESIGN: data flow).
LAYERS = [
    ["_types"],
    ["_arrays"],
    ["_checks"],
    ["_selection"],
    ["_batches", "_positions"],
    ["_labels", "_probe", "_capture", "_estimators"],
    ["_alike"],
    ["_measure"],
    ["_sample_size", "_interval", "estimators"],
    ["_state", "_policies", "_schedule"],
    ["_warmup_stable_decay", "_going_back", "_rate", "_place", "_order"],
    ["_transform"],
    ["_layerwise", "_record", "_files"],
    ["_rows"],
    ["_history", "_range_test", "_panels"],
    ["plots"],
    ["_command_line"],
    ["__init__", "__main__"],
]
FOLDERS = ("_capture", "_estimators", "_command_line")
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

PUBLIC = {
    name: value
    for name, value in vars(optax_mi).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}


def module_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_run_one_way(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        package, *inner = (node.module or "").split(".")
        if package != "optax_mi":
            continue
        inner = inner[:1] or [alias.name for alias in node.names]
        for name in inner:
            same_folder = name == module_of(path) in FOLDERS
            assert same_folder or RANK[name] < RANK[module_of(path)], (path, name)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    value = PUBLIC[name]
    documentation = inspect.getdoc(value) or ""
    assert documentation
    if inspect.isfunction(value):
        for section in ("Args:", "Returns:", "Raises:", "Example:"):
            assert section in documentation, section


@pytest.mark.parametrize(("old", "new"), optax_mi._RENAMED.items())
def test_names_of_before_warn_and_are_the_new_ones(old, new):
    with pytest.warns(DeprecationWarning, match=f"optax_mi.{old} is now .*{new}"):
        assert getattr(optax_mi, old) is getattr(optax_mi, new)
    assert old not in vars(optax_mi)


def test_estimators_are_the_same_in_both_places():
    names = {name for name in vars(optax_mi.estimators) if not name.startswith("_")}
    assert {"ksg", "knn_entropy", "Bounds", "NeuralEstimate", "Estimator"} <= names
    for name in names:
        assert getattr(optax_mi.estimators, name) is getattr(optax_mi, name)


IMPORTS = """
import sys, jax, flax, optax
before = set(sys.modules)
import optax_mi
print(*{module.partition(".")[0] for module in set(sys.modules) - before})
print("flax.nnx" in sys.modules, bool(jax._src.xla_bridge._backends))
"""


def test_importing_it_imports_little_more_than_jax_flax_and_optax():
    # NNX takes longer to import than all of this package, and a Linen user needs none.
    printed = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    ).stdout
    modules, state = printed.splitlines()
    found = set(modules.split()) - sys.stdlib_module_names
    assert {"optax_mi"} <= found <= {"optax_mi", "jaxtyping", "numpy"}
    assert state == "False False"  # and touches no device
