"""Saves of a run that may be stopped, from which it goes on as if it had not been."""

import shutil
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

_ONE_AT_ONCE = ocp.CheckpointManagerOptions(
    max_to_keep=1, enable_async_checkpointing=False
)


class Saves:
    """The last save of a run; its folder is made by the first one.

    Args:
      folder: Where, and for this run alone.
      every: The number of epochs between two saves.
    """

    def __init__(self, folder: Path, every: int = 5) -> None:
        self._folder, self._every = folder.resolve(), every

    def _manager(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(self._folder, options=_ONE_AT_ONCE)

    @property
    def epochs(self) -> int:
        """The number of epochs that were done at the last save, 0 without one."""
        if not self._folder.exists():
            return 0
        with self._manager() as manager:
            return manager.latest_step() or 0

    def restore(self, like: Any) -> tuple[Any, Any]:
        """The arrays of the last save, in the structure of `like`, and its notes."""
        parts = {
            "arrays": ocp.args.StandardRestore(like),
            "notes": ocp.args.JsonRestore(),
        }
        with self._manager() as manager:
            found = manager.restore(
                manager.latest_step(), args=ocp.args.Composite(**parts)
            )
        return found["arrays"], found["notes"]

    def save(self, epochs: int, arrays: Any, notes: Any) -> None:
        """Saves arrays and notes, which are JSON's, if it is time to."""
        if epochs % self._every:
            return
        parts = {
            "arrays": ocp.args.StandardSave(arrays),
            "notes": ocp.args.JsonSave(notes),
        }
        with self._manager() as manager:
            manager.save(epochs, args=ocp.args.Composite(**parts))

    def remove(self) -> None:
        """Removes the folder, when the results are kept elsewhere."""
        shutil.rmtree(self._folder, ignore_errors=True)
