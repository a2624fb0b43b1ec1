"""Checkpoints of a run that may go on with other devices than it was begun with."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

import optax_mi


class Checkpoints:
    """The last epochs of a run, or none where no folder is given.

    Every process of a run has to take part.
    """

    def __init__(self, folder: Path | None) -> None:
        """Opens the folder."""
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = folder and ocp.CheckpointManager(
            folder.resolve(), options=options
        )

    def latest(
        self, shapes: Any, shardings: Any
    ) -> tuple[int, Any, optax_mi.MIHistory] | None:
        """The last epoch that was saved whole, its state laid out anew, its history."""
        if not self._manager or (epoch := self._manager.latest_step()) is None:
            return None

        def as_laid_out(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        state = jax.tree.map(as_laid_out, shapes, shardings)
        restored = self._manager.restore(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(state), history=ocp.args.JsonRestore()
            ),
        )
        history = optax_mi.MIHistory(restored["history"]["rows"])
        return epoch, restored["state"], history

    def save(self, epoch: int, state: Any, history: optax_mi.MIHistory) -> None:
        """Writes an epoch's end, in the background."""
        if self._manager:
            rows = {"rows": [*history.rows]}
            self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), history=ocp.args.JsonSave(rows)
                ),
            )

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for what is being written."""
        if self._manager:
            self._manager.close()
