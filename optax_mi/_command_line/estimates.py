"""The commands `estimate` and `curve`: mutual information of two arrays."""

from __future__ import annotations

import argparse
import json
import math
from functools import partial
from typing import Any

import jax
import numpy as np

import optax_mi
from optax_mi import _checks
from optax_mi._command_line import files, pictures
from optax_mi._command_line.terminal import InputError, Progress, say, table
from optax_mi._interval import FEWEST
from optax_mi._types import Numeric

# Integers of more different values, as a share of the rows, are taken for amounts.
MOST_CLASSES = 0.2


def estimate(args: argparse.Namespace) -> None:
    """Prints the information with its standard error and its p-value."""
    x, y = _load(args)
    classes = _checks.is_discrete(y)
    used = int(optax_mi.usable_points(y)) if classes else len(x)
    if not used:
        raise InputError("no estimate: every example is the only one of its class")
    with Progress("compiling and estimating"):
        mi, error, p_value = _measured(args, x, y)
    if args.json:
        content = {
            "mi": mi,
            "standard_error": _or_none(error),
            "p_value": _or_none(p_value),
            "unit": "nats",
            "n": len(x),
            "used": used,
            "outcomes": "classes" if classes else "continuous",
            "k": args.k[0] if len(args.k) == 1 else args.k,
            "metric": args.metric,
            "scaling": args.scaling,
        }
        print(json.dumps(content, indent=2, allow_nan=False))
        return
    known = f"+- {error:.4f}" if math.isfinite(error) else "(standard error unknown)"
    print(f"I(X; Y) = {mi:.4f} {known} nats")
    if math.isfinite(p_value):
        print(f"p = {p_value:.3g} of independence, {args.permutations} permutations")
    kind = f"{len(np.unique(y))} classes" if classes else "continuous outcomes"
    k = " and ".join(map(str, args.k))
    how = f"k = {k}, {args.metric}, scaling: {args.scaling}"
    print(f"{len(x)} examples, {kind}, {how}")
    if used < len(x):
        print(f"left out, alone in their class: {len(x) - used}")


def _measured(
    args: argparse.Namespace,
    x: Numeric[np.ndarray, "n ..."],
    y: Numeric[np.ndarray, "n ..."],
) -> tuple[float, float, float]:
    """The estimate, the standard error and the p-value; NaN for one that is missing."""
    if len(x) == len(y) < FEWEST:
        say(f"no standard error and no p-value: they take at least {FEWEST} examples")
        found = optax_mi.estimate_mi({"": x}, y, estimator=_estimator(args, y))
        return float(found[""]), math.nan, math.nan
    found = optax_mi.mi_with_error(
        jax.random.key(args.seed),
        x,
        y,
        estimator=_estimator(args, y),
        permutations=args.permutations,
        blocks=args.blocks,
    )
    return float(found.mi), float(found.standard_error), float(found.p_value)


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def curve(args: argparse.Namespace) -> None:
    """Prints the estimate against the sample's size, and draws it."""
    x, y = _load(args)
    # Samples of more than half would be much the same examples.
    usual = [size for size in (100, 300, 1000, 3000, 10_000) if size <= len(x) // 2]
    if not (args.sizes or usual):
        raise InputError(f"give --sizes: there are only {len(x)} examples")
    with Progress("estimates of samples") as progress:
        found = optax_mi.sample_size_curve(
            jax.random.key(args.seed),
            x,
            y,
            args.sizes or usual,
            args.repeats,
            estimator=_estimator(args, y),
            progress=progress.count,
        )
    columns = zip(found.sizes, found.mean, found.std, strict=True)
    rows = [[f"{size}", f"{mean:.4f}", f"{std:.4f}"] for size, mean, std in columns]
    print(table(["examples", "I(X; Y), nats", "standard deviation"], rows))
    if args.out:
        pictures.draw(args.out, lambda plots: plots.sample_size(found))
        print(args.out)


def _load(
    args: argparse.Namespace,
) -> tuple[Numeric[np.ndarray, "n ..."], Numeric[np.ndarray, "m ..."]]:
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed must be from 0 to {2**32 - 1}, got {args.seed}")
    x, y = files.array(args.x), files.array(args.y, words=True)
    if y.dtype.kind == "U":
        if args.continuous:
            raise InputError(f"--continuous needs numbers; {args.y} holds words")
        return x, np.unique(y, return_inverse=True)[1]
    if args.labels and not _checks.is_discrete(y):
        if not np.array_equal(y, np.round(y)):
            raise InputError(f"--labels needs whole numbers; {args.y} holds others")
        y = y.astype(np.int64)
    amounts = args.continuous
    if _checks.is_discrete(y) and not (args.labels or amounts):
        different = len(np.unique(y))
        amounts = different > MOST_CLASSES * len(y)
        if amounts:
            say(
                f"{args.y} holds {different} different integers in {len(y)} rows: "
                "taken for amounts, not for classes (--labels for classes)"
            )
    return x, (_as_floats(y) if amounts else y)


def _as_floats(y: Numeric[np.ndarray, "n ..."]) -> Numeric[np.ndarray, "n ..."]:
    """Amounts as floats; of large integers the differences are exact."""
    if y.dtype.kind in "iu":
        y = y - y.min(axis=0)
    return y.astype(np.float64)


def _estimator(
    args: argparse.Namespace, y: Numeric[np.ndarray, "n ..."]
) -> optax_mi.Estimator:
    by_neighbours = optax_mi.ksg_discrete if _checks.is_discrete(y) else optax_mi.ksg
    options: dict[str, Any] = {"k": args.k}
    options |= {"metric": args.metric, "scaling": args.scaling}
    return partial(by_neighbours, **options)
