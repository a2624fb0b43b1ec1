"""Builds the documentation: `make docs`."""

import ast
import inspect
import pathlib
import sys
import textwrap
import zlib

from sphinx.util import logging

import optax_mi
from optax_mi import plots

HERE = pathlib.Path(__file__).parent

project = "optax_mi"
author = "The optax_mi authors"
copyright = author  # noqa: A001 (Sphinx's name)
version = release = optax_mi.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]
nitpicky = True  # a name that leads nowhere is a warning, and so an error
default_role = "py:obj"  # `ksg` in a docstring is a link, and `k` stays as it is
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    # Of jaxtyping, to whose page docs/api.md leads.
    ("py:class", "Array|Bool|Float|Int|Int32|PRNGKeyArray|ScalarLike|Shaped"),
]

html_theme = "furo"
html_title = f"optax_mi {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_js_files = ["pictures.js"]
copybutton_exclude = ".linenos, .gp, .go"  # prompts and what a program prints

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Text notebooks run as the pages are built, and an error in one fails the build. Those
# of examples/notebooks come with their outputs: `make notebooks`.
nb_execution_mode = "force"
nb_execution_excludepatterns = ["notebooks/*"]
nb_execution_raise_on_error = True
nb_execution_timeout = 90
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # written below, as the source has them
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88


def inventory(name: str) -> str:
    """The names of other projects that these pages link to, for builds without network.

    Where the project's own inventory can be reached, that is used.
    """
    lines = (HERE / "external_names.txt").read_text().splitlines()
    names = [line.split(maxsplit=1)[1] for line in lines if line.startswith(f"{name} ")]
    entries = [
        f"{full_name} {role} 1 {page} -\n"
        for full_name, role, page in (entry.split() for entry in names)
    ]
    path = HERE / "_build" / "inventories" / f"{name}.inv"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    header += "# The remainder of this file is compressed using zlib.\n"
    path.write_bytes(header.encode() + zlib.compress("".join(entries).encode()))
    return str(path)


intersphinx_mapping = {
    name: (url, (None, inventory(name)))
    for name, url in {
        "python": "https://docs.python.org/3",
        "numpy": "https://numpy.org/doc/stable",
        "matplotlib": "https://matplotlib.org/stable",
        "jax": "https://docs.jax.dev/en/latest",
        "optax": "https://optax.readthedocs.io/en/latest",
        "flax": "https://flax.readthedocs.io/en/latest",
    }.items()
}

# How names are written in signatures, and where they lead.
FULL_NAMES = {
    "Any": "typing.Any",
    "ArrayLike": "jax.typing.ArrayLike",
    "Axes": "matplotlib.axes.Axes",
    "Callable": "collections.abc.Callable",
    "Estimator": "optax_mi.Estimator",
    "Figure": "matplotlib.figure.Figure",
    "Iterable": "collections.abc.Iterable",
    "Literal": "typing.Literal",
    "MIHistory": "optax_mi.MIHistory",
    "MIInterval": "optax_mi.MIInterval",
    "LRRangeTest": "optax_mi.LRRangeTest",
    "NeuralEstimate": "optax_mi._estimators._neural.NeuralEstimate",
    "Bounds": "optax_mi._estimators._bounds.Bounds",
    "Model": "flax.linen.Module | flax.nnx.Module",
    "Mapping": "collections.abc.Mapping",
    "Policy": "optax_mi.Policy",
    "PolicyInput": "optax_mi.PolicyInput",
    "Probe": "optax_mi.Probe",
    "SampleSizeCurve": "optax_mi.SampleSizeCurve",
    "Sequence": "collections.abc.Sequence",
    "np.ndarray": "numpy.ndarray",
}


class WithFullNames(ast.NodeTransformer):
    """Writes the names of an annotation in full."""

    def _full(self, node: ast.expr) -> ast.expr:
        full = FULL_NAMES.get(ast.unparse(node))
        return ast.parse(full, mode="eval").body if full else node

    visit_Name = visit_Attribute = _full


def signature_as_written(app, what, name, obj, options, signature, returns):
    """Signatures as the source has them: shapes, and aliases by their names."""
    if what not in ("function", "method"):
        return signature, returns
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(obj))).body
    function = WithFullNames().visit(function)
    if what == "method":
        del function.args.args[:1]  # self
    answer = ast.unparse(function.returns) if function.returns else None
    return f"({ast.unparse(function.args)})", answer


def fields_as_written(app, what, name, obj, options, lines):
    """The shape of a named tuple's field, before what is said of it."""
    if what == "attribute":
        module, class_name, field = name.rsplit(".", 2)
        annotations = vars(vars(sys.modules[module])[class_name])["__annotations__"]
        if field in annotations:
            shape = getattr(annotations[field], "__forward_arg__", annotations[field])
            said = [line for line in lines if not line.startswith("Alias for field")]
            lines[:] = [f"``{shape}``", "", *said]


def aliases_are_data(app, env, node, contnode):
    """Sphinx takes all names in signatures for classes; JAX has this one as data."""
    if node.get("reftarget") == "jax.typing.ArrayLike":
        node["reftype"] = "data"


def check_that_all_is_documented(app, env):
    """Warns of a public name that no page documents."""
    documented = env.get_domain("py").objects
    for module in (optax_mi, plots):
        for name, value in vars(module).items():
            here = getattr(value, "__module__", "").startswith("optax_mi")
            ours = here and (module is optax_mi or value.__module__ == plots.__name__)
            if ours and not name.startswith("_"):
                full_name = f"{module.__name__}.{name}"
                if full_name not in documented:
                    logging.getLogger(__name__).warning("undocumented: %s", full_name)


def setup(app):
    """Registers what is above."""
    app.connect("autodoc-process-signature", signature_as_written)
    app.connect("autodoc-process-docstring", fields_as_written)
    app.connect("missing-reference", aliases_are_data, priority=400)
    app.connect("env-check-consistency", check_that_all_is_documented)
