"""The changes of mutants.py that no test notices, and why, by file.

Each is the line with its change marked, as `make mutants` prints it.
"""

import re

SURVIVORS = {
    "optax_mi/_policies.py": {
        "where information or reference is no more than 0 the answer is the rate in "
        "force; the number only keeps a zero from the denominator": [
            "d1 = 1 - p.mi / jnp.where(usable, p.reference, ⟦1 → 2⟧)",
            "return change / jnp.where(p.mi > 0, p.mi, ⟦1 → 2⟧)",
        ],
        "where d1 is 0 all three rates are the one in force": [
            "learning_rate = jnp.where(d1 ⟦> → >=⟧ 0, jnp.where(growing, raised, "
            "lowered), over)",
        ],
    },
    "optax_mi/_rate.py": {
        "a bound of 0 is 0 either way": [
            "low = jnp.where(jnp.isfinite(low) & (low ⟦>= → >⟧ 0), low, 0)",
        ],
        "what a policy sees before there is anything to judge, finite and not 0; its "
        "answer is discarded": [
            "mi=jnp.where(judged, mi, ⟦1 → 2⟧),",
            "previous_mi=jnp.where(judged, state.mi, ⟦1 → 2⟧),",
            "reference=jnp.where(judged, state.reference, ⟦1 → 2⟧),",
        ],
    },
    "optax_mi/_estimators/_neighbours/tiles.py": {
        "the same number of groups, or one that serves in 97 rows of 100 as well": [
            "enough = max(_GROUPS, 1 << (⟦20 → 19⟧ * k * (k - 1)).bit_length())",
            "enough = max(_GROUPS, 1 << (⟦20 → 21⟧ * k * (k - 1)).bit_length())",
            "enough = max(_GROUPS, 1 << (20 * k * (k - ⟦1 → 2⟧)).bit_length())",
        ],
        "only shapes are asked for": [
            "number = len(jax.eval_shape(predicates, _cut(arrays, ⟦0 → -1⟧, _LANES)))",
            "number = len(jax.eval_shape(predicates, _cut(arrays, ⟦0 → 1⟧, _LANES)))",
            "shape = jax.eval_shape(value, _cut(arrays, ⟦0 → -1⟧, _LANES))",
            "shape = jax.eval_shape(value, _cut(arrays, ⟦0 → 1⟧, _LANES))",
        ],
        "all of these are alike, or there is one": [
            "tile = _tile(lambda slices: predicates(slices)[⟦0 → -1⟧], arrays)",
            "return jax.tree.leaves(arrays)[⟦0 → -1⟧].shape[-1]",
            "n = jax.tree.leaves(rows)[⟦0 → -1⟧].shape[0]",
            "order = jnp.nonzero(doubtful, size=n, fill_value=0)[⟦0 → -1⟧]",
        ],
        "any row serves to fill the last block": [
            "order = jnp.nonzero(doubtful, size=n, fill_value=⟦0 → 1⟧)[0]",
            "order = jnp.nonzero(doubtful, size=n, fill_value=⟦0 → -1⟧)[0]",
        ],
        "decides the time alone": [
            "if lanes ⟦> → >=⟧ tile.lanes:",
            "parts = max(⟦1 → 2⟧, m // (_LANES * _FOLDS))",
            "last = jnp.minimum(first + period, tiles) if tiles ⟦% → *⟧ period else "
            "first + period",
        ],
        "the round before has reached k, and another one stays there": [
            "return jax.lax.fori_loop(⟦1 → 0⟧, max_k, step, minimum(stored, minima))",
        ],
        "for k = 1 it starts from the smallest, which is never too large": [
            "return smaller >= jnp.maximum(k, ⟦1 → 2⟧)",
        ],
        "the last of these always serves": [
            "for t in range(1, parts + ⟦1 → 2⟧)",
        ],
        "k could be given by its place, and is not": [
            'minima: UInt[Array, "rows groups"], ⟦* → /⟧, k: Int[Array, "rows"] | int, '
            "max_k: int",
            'codes: UInt[Array, "rows m"], ⟦* → /⟧, k: Int[Array, "rows"] | int, '
            "max_k: int",
        ],
    },
    "optax_mi/_estimators/_neighbours/distances.py": {
        "decides the time alone": [
            "FEW_FEATURES = ⟦16 → 15⟧",
            "FEW_FEATURES = ⟦16 → 17⟧",
        ],
        "there is room for another factor of two": [
            "_LARGEST_EXPONENT = ⟦40 → 41⟧",
        ],
    },
}


def before(change: str) -> str:
    """The line as it stands."""
    return re.sub("⟦(.*?) → .*?⟧", r"\1", change)


def tables() -> dict[str, str]:
    """What docs/reliability.md says."""
    lines = []
    for module, reasons in SURVIVORS.items():
        lines.append(f"- `{module}`")
        for reason, changes in reasons.items():
            lines.append(f"  - {reason}:")
            lines += [f"    - `{change}`" for change in changes]
    return {"survivors": "\n".join(lines) + "\n"}
