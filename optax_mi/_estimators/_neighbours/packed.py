"""Several counts in the bits of one word, each added to by one operation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt


class Packed(NamedTuple):
    """So many counts share the 32 bits of a word."""

    number: int

    @property
    def bits(self) -> int:
        """Those of a count."""
        return 32 // self.number

    @property
    def largest(self) -> int:
        """The most that is counted before a word has to be unpacked."""
        return 2**self.bits - 1

    def add(
        self, word: UInt[Array, "*shape"], holds: Sequence[Bool[Array, "*shape"]]
    ) -> UInt[Array, "*shape"]:
        """Adds one to each count whose condition holds."""
        nothing = np.uint32(0)
        added = [
            jnp.where(condition, np.uint32(1 << self.bits * i), nothing)
            for i, condition in enumerate(holds)
        ]
        # Together first: one by one, each has to wait for the word (a third slower).
        return word + reduce(jnp.add, added)

    def unpack(
        self, totals: Sequence[Int[Array, "*shape"]], word: UInt[Array, "*shape"]
    ) -> list[Int[Array, "*shape"]]:
        """Adds the counts of a word to totals."""
        full = np.uint32(self.largest)
        return [
            total + ((word >> np.uint32(self.bits * i)) & full).astype(total.dtype)
            for i, total in enumerate(totals)
        ]
