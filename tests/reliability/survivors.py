"""The changes of mutants.py that no test notices, and why, by file.

Each is the line with its change marked, as `make mutants` prints it.
"""

import re

SURVIVORS = {
    "optax_mi/_policies.py": {
        "where the information or the reference is 0 or less, the rate stays as it is; "
        "the number only prevents a division by zero": [
            "d1 = 1 - p.mi / jnp.where(usable, p.reference, ⟦1 → 2⟧)",
            "return change / jnp.where(p.mi > 0, p.mi, ⟦1 → 2⟧)",
        ],
        "where d1 is 0, all three rates are the rate in force": [
            "learning_rate = jnp.where(d1 ⟦> → >=⟧ 0, jnp.where(growing, raised, "
            "lowered), over)",
        ],
    },
    "optax_mi/_rate.py": {
        "a bound of 0 is 0 in both cases": [
            "low = jnp.where(jnp.isfinite(low) & (low ⟦>= → >⟧ 0), low, 0)",
        ],
        "the policy is given a finite number other than 0 before there are "
        "measurements; its answer is then discarded": [
            "mi=jnp.where(judged, mi, ⟦1 → 2⟧),",
            "previous_mi=jnp.where(judged, state.mi, ⟦1 → 2⟧),",
            "reference=jnp.where(judged, state.reference, ⟦1 → 2⟧),",
        ],
    },
    "optax_mi/_estimators/_neighbours/tiles.py": {
        "the number of groups is the same, or one that suffices in 97 rows of 100": [
            "enough = max(_GROUPS, 1 << (⟦20 → 19⟧ * k * (k - 1)).bit_length())",
            "enough = max(_GROUPS, 1 << (⟦20 → 21⟧ * k * (k - 1)).bit_length())",
            "enough = max(_GROUPS, 1 << (20 * k * (k - ⟦1 → 2⟧)).bit_length())",
        ],
        "only the shapes are used": [
            "number = len(jax.eval_shape(predicates, _cut(arrays, ⟦0 → -1⟧, _LANES)))",
            "number = len(jax.eval_shape(predicates, _cut(arrays, ⟦0 → 1⟧, _LANES)))",
            "shape = jax.eval_shape(value, _cut(arrays, ⟦0 → -1⟧, _LANES))",
            "shape = jax.eval_shape(value, _cut(arrays, ⟦0 → 1⟧, _LANES))",
        ],
        "all elements are alike, or there is only one": [
            "tile = _tile(lambda slices: predicates(slices)[⟦0 → -1⟧], arrays)",
            "return jax.tree.leaves(arrays)[⟦0 → -1⟧].shape[-1]",
            "n = jax.tree.leaves(rows)[⟦0 → -1⟧].shape[0]",
            "order = jnp.nonzero(doubtful, size=n, fill_value=0)[⟦0 → -1⟧]",
        ],
        "any row can fill the last block": [
            "order = jnp.nonzero(doubtful, size=n, fill_value=⟦0 → 1⟧)[0]",
            "order = jnp.nonzero(doubtful, size=n, fill_value=⟦0 → -1⟧)[0]",
        ],
        "only the running time changes": [
            "if lanes ⟦> → >=⟧ tile.lanes:",
            "parts = max(⟦1 → 2⟧, m // (_LANES * _FOLDS))",
            "last = jnp.minimum(first + period, tiles) if tiles ⟦% → *⟧ period else "
            "first + period",
        ],
        "the round before has reached k, and one more changes nothing": [
            "return jax.lax.fori_loop(⟦1 → 0⟧, max_k, step, minimum(stored, minima))",
        ],
        "for k = 1 the start is the smallest value, which is never too large": [
            "return smaller >= jnp.maximum(k, ⟦1 → 2⟧)",
        ],
        "the last of these always suffices": [
            "for t in range(1, parts + ⟦1 → 2⟧)",
        ],
        "k could be passed by position, and never is": [
            'minima: UInt[Array, "rows groups"], ⟦* → /⟧, k: Int[Array, "rows"] | int, '
            "max_k: int",
            'codes: UInt[Array, "rows m"], ⟦* → /⟧, k: Int[Array, "rows"] | int, '
            "max_k: int",
        ],
    },
    "optax_mi/_estimators/_neighbours/distances.py": {
        "only the running time changes": [
            "FEW_FEATURES = ⟦16 → 15⟧",
            "FEW_FEATURES = ⟦16 → 17⟧",
        ],
        "another factor of two still fits": [
            "_LARGEST_EXPONENT = ⟦40 → 41⟧",
        ],
    },
}


def before(change: str) -> str:
    """The line as it stands."""
    return re.sub("⟦(.*?) → .*?⟧", r"\1", change)


def tables() -> dict[str, str]:
    """The list in docs/reliability_tables.md."""
    lines = []
    for module, reasons in SURVIVORS.items():
        lines.append(f"- `{module}`")
        for reason, changes in reasons.items():
            lines.append(f"  - {reason}:")
            lines += [f"    - `{change}`" for change in changes]
    return {"survivors": "\n".join(lines) + "\n"}
