"""How many numbers stay near the processor while they are worked on."""

from __future__ import annotations

import jax

# Of a core of a CPU: its first cache, and its second.
CPU_FIRST, CPU_SECOND = 2**13, 2**18

# So many numbers keep all threads of an accelerator busy.
_ACCELERATOR = 2**25


def first() -> int:
    """How many numbers one kernel may read again and again."""
    return CPU_FIRST if jax.default_backend() == "cpu" else _ACCELERATOR


def second() -> int:
    """How many numbers one kernel may write for the next to read."""
    return CPU_SECOND if jax.default_backend() == "cpu" else _ACCELERATOR
