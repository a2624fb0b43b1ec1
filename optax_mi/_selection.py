"""The layers asked for: by name, pattern, class, depth or predicate."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from optax_mi import _checks

Layers: TypeAlias = (
    str | re.Pattern[str] | type | int | Sequence[Any] | Callable[[str], bool] | None
)

# By default, of more layers than this only the blocks of the network are returned.
MANY = 20


class Selection:
    """The layers asked for."""

    def __init__(self, layers: Layers) -> None:
        several = isinstance(layers, Sequence) and not isinstance(layers, str)
        self.asked: list[Any] = list(cast("Any", layers)) if several else [layers]
        for one in self.asked:
            known = one is None or callable(one)
            if not known and not isinstance(one, str | re.Pattern | int):
                expected = "names, patterns, classes, a depth or a predicate"
                _checks.fail("layers", expected, repr(one))

    @property
    def names(self) -> list[str]:
        """The layers asked for by their full names."""
        return [one for one in self.asked if isinstance(one, str) and "*" not in one]

    def wants(self, module: str) -> bool:
        """Whether a module's output, or a part of it, may be asked for."""
        return any(_may_match(one, module) for one in self.asked)

    def of(
        self, found: Mapping[str, Any], classes: Mapping[str, type]
    ) -> dict[str, Any]:
        """The layers asked for, in the order of the request.

        Args:
          found: The stored arrays, by name.
          classes: Of modules, by name.

        Raises:
          ValueError: If nothing fits a pattern or a class.
        """
        chosen: dict[str, Any] = {}
        for one in self.asked:
            if one is None:
                chosen |= _blocks(found)
                continue
            fitting = {k: a for k, a in found.items() if _matches(one, k, classes)}
            if not fitting and isinstance(one, str | re.Pattern | type | int):
                shown = one.pattern if isinstance(one, re.Pattern) else one
                _checks.fail("layers", f"among {sorted(found)}", [shown])
            chosen |= fitting
        return chosen


def _matches(one: Any, name: str, classes: Mapping[str, type]) -> bool:
    if isinstance(one, str):
        return name == one or ("*" in one and bool(_glob(one).fullmatch(name)))
    if isinstance(one, re.Pattern):
        return bool(one.search(name))
    if isinstance(one, type):
        module = next((part for part in _beginnings(name) if part in classes), None)
        return module is not None and issubclass(classes[module], one)
    if isinstance(one, int):
        return len(name.split("/")) <= one
    return bool(one(name))


def _may_match(one: Any, module: str) -> bool:
    if isinstance(one, str) and "*" not in one:
        # One of several outputs is stored by the module: "Dense_0/1", "heads/logits".
        return module in _beginnings(one)
    return True


def _beginnings(name: str) -> Iterable[str]:
    """A name, and the modules that contain it, the longest path first."""
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(len(parts), 0, -1)]


def _glob(pattern: str) -> re.Pattern[str]:
    """`*` for anything within a name, `**` for anything."""
    parts = re.split(r"(\*\*|\*)", pattern)
    meaning = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(meaning.get(p, re.escape(p)) for p in parts))


def _blocks(found: Mapping[str, Any]) -> dict[str, Any]:
    """All layers, or those of the outermost blocks if there are many."""
    if len(found) <= MANY:
        return dict(found)
    depths = {name: len(name.split("/")) for name in found if name}
    least = next(
        depth
        for depth in sorted(set(depths.values()))
        if sum(d <= depth for d in depths.values()) > 1
    )
    kept = {name: a for name, a in found.items() if depths.get(name, 0) <= least}
    if len(kept) < len(found):
        warnings.warn(
            f"Of {len(found)} layers the {len(kept)} outermost are returned. "
            f"layers='**' returns all, layers={least + 1} goes a level deeper.",
            stacklevel=5,  # the call of `capture_activations`
        )
    return kept
