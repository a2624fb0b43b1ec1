"""How many numbers stay near the processor while they are worked on."""

from __future__ import annotations

import jax

# Of a core of a CPU: its first cache, and its second.
CPU_FIRST, CPU_SECOND = 2**13, 2**18

# Elsewhere there are as many threads, and so many numbers keep them all busy.
_ACCELERATOR = 2**25


def first() -> int:
    """What is read again and again by one kernel."""
    return CPU_FIRST if jax.default_backend() == "cpu" else _ACCELERATOR


def second() -> int:
    """What is written by a kernel, and read by the next."""
    return CPU_SECOND if jax.default_backend() == "cpu" else _ACCELERATOR
