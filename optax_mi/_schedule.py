"""When to measure: often at the start, later once an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optax_mi import _checks


def measurement_steps(
    steps_per_epoch: int, *, dense_epochs: int = 2, per_epoch: int = 10
) -> Callable[[Any], Any]:
    """Returns when to measure: often in the first epochs, then once an epoch.

    The rate changes only when a measurement arrives, and it should cross its range
    early, which takes many measurements. Later one an epoch is enough, and costs
    little. The first is due before the first step.

    Args:
      steps_per_epoch: Updates in an epoch. If epochs are long, give the number of
        updates after which you would look at a validation loss.
      dense_epochs: The number of epochs with several measurements.
      per_epoch: How many they have, evenly spread; each step if there are fewer steps.

    Returns:
      A function from the number of updates so far, an integer or an integer array
      (which may be traced), to whether a measurement is due before the next update.

    Raises:
      ValueError: If a number is not an integer >= 1 (dense_epochs: >= 0).

    Example:
      >>> import optax_mi
      >>> due = optax_mi.measurement_steps(100, dense_epochs=1, per_epoch=4)
      >>> [step for step in range(401) if due(step)]
      [0, 25, 50, 75, 100, 200, 300, 400]
    """
    _checks.positive_integer("steps_per_epoch", steps_per_epoch)
    _checks.positive_integer("per_epoch", per_epoch)
    _checks.within("dense_epochs", dense_epochs, 0)
    each = min(per_epoch, steps_per_epoch)

    def due(step: Any) -> Any:
        within = step % steps_per_epoch
        # The parts of an epoch start at the steps ceil(i * steps_per_epoch / each).
        starts = (within * each) % steps_per_epoch < each
        dense = starts & (step < dense_epochs * steps_per_epoch)
        return dense | (within == 0)

    return due
