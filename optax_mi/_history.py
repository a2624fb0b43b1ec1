"""What a run's rates and measurements were, for tables, files and other tools."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsInt

import numpy as np
from jaxtyping import Shaped

from optax_mi import _checks, _files, _rows
from optax_mi._files import PathLike
from optax_mi._order import tell_of_order
from optax_mi._record import labelled_states, pending_only
from optax_mi._state import UNBOUNDED, is_known, tell_of_no_reference
from optax_mi._types import Measurement


@dataclasses.dataclass(repr=False)
class MIHistory:
    """The learning rate, information and reference of each layer, epoch by epoch.

    A list of rows and not a pytree: it grows by a row for each layer and epoch, which
    what a compiled loop carries cannot do, and it is read outside of one. A row is a
    dictionary with ``epoch``, ``step``, ``layer``, ``learning_rate``, ``mi`` and
    ``reference`` (in nats; NaN: none), ``normalized_mi``, which is ``mi / reference``
    (NaN without a reference, or with one of 0), and whatever else was recorded. Its
    length is the number of rows, and a notebook shows it as a table. `optax_mi.plots`
    draws it.

    With the entropy of the labels as the reference, ``normalized_mi`` is the share of
    it that the layer tells, also called the uncertainty coefficient. Estimates may be
    below 0 and a little above 1.

    A run that is compiled as a whole gives its states stacked, one epoch after the
    other: record ``jax.tree.map(lambda a: a[epoch], states)`` for each.

    Attributes:
      rows: The rows, oldest first.

    Example:
      >>> import jax.numpy as jnp, optax, optax_mi
      >>> policy = optax_mi.reference_policy()
      >>> rate = optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=policy)
      >>> tx = optax.chain(optax.sgd(1.0), rate)
      >>> opt_state = tx.init(jnp.ones(3))
      >>> history = optax_mi.MIHistory()
      >>> for epoch, mi in enumerate((0.5, 1.0, 1.2)):
      ...     _, opt_state = tx.update(jnp.ones(3), opt_state)
      ...     opt_state = optax_mi.record_mi(opt_state, mi, reference=2.3)
      ...     history.record(opt_state, epoch=epoch, mi=mi, accuracy=0.5 + epoch / 10)
      >>> print(history.to_table())
      | epoch | step | learning_rate | mi | reference | normalized_mi | accuracy |
      |---|---|---|---|---|---|---|
      | 0 | 1 | 0.001 | 0.5 | 2.3 | 0.2174 | 0.5 |
      | 1 | 2 | 0.001 | 1 | 2.3 | 0.4348 | 0.6 |
      | 2 | 3 | 0.05752 | 1.2 | 2.3 | 0.5217 | 0.7 |
    """

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return "MIHistory(no rows)"
        epochs = len({row["epoch"] for row in self.rows})
        counts = ((len(self), "row"), (epochs, "epoch"), (len(self.layers), "layer"))
        told = (f"{n} {name}{'s' * (n != 1)}" for n, name in counts)
        return f"MIHistory({', '.join(told)})"

    def _repr_html_(self) -> str:
        return _rows.as_html(self.rows)

    def record(
        self,
        opt_state: Any,
        *,
        epoch: SupportsInt,
        mi: Measurement | None = None,
        **metrics: SupportsFloat,
    ) -> None:
        """Adds a row for each learning rate in an optimizer's state.

        Call it at an epoch's end, after `record_mi`: the row then has the rate that was
        in force in the epoch and the information that it ended with.

        Args:
          opt_state: The state of any optimizer with a `mi_dynamic_lr` in it.
          epoch: The epoch's number.
          mi: What was measured, as for `record_mi`. Without it the row has the state's
            last finite measurement, which says nothing of one that failed since.
          **metrics: Numbers of the whole network, such as loss and accuracy. Each
            layer's row has them.

        Raises:
          ValueError: If there is no `mi_dynamic_lr` state, or `record_mi` would refuse
            this measurement.

        Warns:
          UserWarning: As `learning_rates`.
        """
        states = labelled_states(opt_state)
        tell_of_no_reference(states)
        tell_of_order(opt_state)
        given = states if mi is None else labelled_states(pending_only(opt_state, mi))
        for layer, state in states.items():
            measured = given[layer].pending
            if mi is None and not is_known(measured):
                measured = state.mi
            bounded = is_known(state.reference) & (state.reference < UNBOUNDED)
            self.add(
                epoch=epoch,
                step=int(state.count),
                layer=layer,
                learning_rate=float(state.learning_rate),
                mi=float(measured) if is_known(measured) else math.nan,
                reference=float(state.reference) if bounded else math.nan,
                **metrics,
            )

    def add(
        self,
        *,
        epoch: SupportsInt,
        learning_rate: SupportsFloat,
        mi: SupportsFloat,
        reference: SupportsFloat = math.nan,
        layer: str = "",
        step: SupportsInt | None = None,
        **metrics: SupportsFloat,
    ) -> None:
        """Adds one row by its values, as for a run whose rate a schedule sets.

        Args:
          epoch: The epoch's number.
          learning_rate: The rate that was in force.
          mi: I(H; Y) after the epoch, in nats.
          reference: In nats; NaN: none.
          layer: The layer's name, "" for the whole network.
          step: Updates so far.
          **metrics: Other numbers by their names.

        Raises:
          ValueError: If ``normalized_mi`` is among them.
        """
        if "normalized_mi" in metrics:
            expected = "left out, as it is mi / reference"
            _checks.fail("normalized_mi", expected, metrics["normalized_mi"])
        row = {
            "epoch": int(epoch),
            "step": None if step is None else int(step),
            "layer": layer,
            "learning_rate": float(learning_rate),
            "mi": float(mi),
            "reference": float(reference),
            "normalized_mi": _rows.normalized(float(mi), float(reference)),
        }
        self.rows.append(row | {name: float(x) for name, x in metrics.items()})

    @property
    def layers(self) -> list[str]:
        """The layers' names, in the order in which they came."""
        return list(dict.fromkeys(row["layer"] for row in self.rows))

    def column(self, name: str, layer: str = "") -> Shaped[np.ndarray, "rows"]:
        """The values of one column for one layer, NaN where a row lacks it.

        Args:
          name: "learning_rate", "mi" or any other name that rows have.
          layer: The layer's name.

        Raises:
          ValueError: If no row has that name or that layer.
        """
        _checks.one_of("layer", layer, self.layers)
        _checks.one_of("name", name, _rows.columns(self.rows))
        values = [row.get(name) for row in self.rows if row["layer"] == layer]
        return np.array([math.nan if value is None else value for value in values])

    def scalars(self) -> tuple[int | None, dict[str, float]]:
        """The latest epoch's step and its numbers by tag, for any metric writer.

        Tags are ``learning_rate/<layer>``, ``mi/<layer>``, ``reference/<layer>``,
        ``normalized_mi/<layer>``, and ``accuracy`` and the like as they are. What was
        not measured is left out.

        Example:
          >>> import optax_mi
          >>> history = optax_mi.MIHistory()
          >>> history.add(epoch=0, step=9, learning_rate=0.25, mi=1.5, accuracy=0.5)
          >>> history.scalars()
          (9, {'learning_rate': 0.25, 'mi': 1.5, 'accuracy': 0.5})
        """
        if not self.rows:
            return None, {}
        return _rows.scalars(self.rows, self.rows[-1]["epoch"])

    def to_table(self) -> str:
        """The rows as a Markdown table, numbers to four figures.

        The column ``layer`` is left out where there is only the whole network, and
        ``normalized_mi`` where no row has it.
        """
        return _rows.markdown(self.rows)

    def to_pandas(self) -> Any:
        """The rows as a pandas frame, with a column for each name.

        Raises:
          ImportError: If pandas is missing.

        Example:
          >>> import optax_mi
          >>> history = optax_mi.MIHistory()
          >>> history.add(epoch=0, learning_rate=0.25, mi=1.5, accuracy=0.5)
          >>> frame = history.to_pandas()  # doctest: +SKIP
          >>> frame.groupby("layer").learning_rate.max()  # doctest: +SKIP
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("`to_pandas` needs it: pip install pandas") from error
        return pandas.DataFrame(self.rows, columns=_rows.columns(self.rows))

    def to_csv(self, path: PathLike) -> None:
        """Writes the rows as CSV, with a header; what is not finite is empty."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _rows.columns(self.rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_files.finite(row) for row in self.rows)
        _files.replace(path, text.getvalue())

    def to_json(self, path: PathLike) -> None:
        """Writes the rows as JSON; what is not finite is null. See `from_json`."""
        rows = ",\n".join(
            json.dumps(_files.finite(row), allow_nan=False) for row in self.rows
        )
        _files.replace(path, f"[\n{rows}\n]\n")

    @classmethod
    def from_json(cls, path: PathLike) -> MIHistory:
        """Reads what `to_json` wrote, as when a run goes on from a checkpoint.

        Raises:
          ValueError: If the file holds something else.
        """
        try:
            return cls._restored(json.loads(Path(path).read_text(encoding="utf-8")))
        except _files.BROKEN as error:
            raise _files.not_written_by("to_json", path, error) from error

    def append_jsonl(self, path: PathLike, name: str, **about: Any) -> None:
        """Appends the run to a JSON-Lines file, as one line. See `from_jsonl`.

        One file holds the runs of one experiment. A line is ``{"name": ..., **about,
        "history": {layer: {column: [a value for each epoch]}}}``. Numbers of the
        history have five significant digits (`to_json` keeps all), and null stands for
        what is not finite. Columns without any value are left out, and so is the
        history where there are no rows.

        Each line is written at once, at the file's end as it is then. So several
        processes may append to one file on a local disk, and one that is killed loses
        no line but its own.

        Args:
          path: The file, begun where there is none.
          name: The run's name.
          **about: What else is to be known of the run, such as its configuration and
            its machine, kept to the last digit.

        Raises:
          ValueError: If JSON has no words for it.

        Example:
          >>> import pathlib, tempfile, optax_mi
          >>> path = pathlib.Path(tempfile.mkdtemp()) / "runs.jsonl"
          >>> history = optax_mi.MIHistory()
          >>> history.add(epoch=0, learning_rate=0.1 / 3, mi=1.5)
          >>> history.append_jsonl(path, "plain", seed=0)
          >>> for about, run in optax_mi.MIHistory.from_jsonl(path):
          ...     print(about, run.column("learning_rate"))
          {'name': 'plain', 'seed': 0} [0.033333]
        """
        if "history" in about:
            _checks.fail("about", "without a history of its own", about)
        line = {"name": name, **about}
        if self.rows:
            line["history"] = {
                layer: _rows.of_layer(self.rows, layer) for layer in self.layers
            }
        try:
            text = json.dumps(line, allow_nan=False)
        except (TypeError, ValueError) as error:
            _checks.fail("about", f"what JSON has words for ({error})", about)
        _files.append(path, text)

    @classmethod
    def from_jsonl(cls, path: PathLike) -> list[tuple[dict[str, Any], MIHistory]]:
        """Reads the runs that `append_jsonl` wrote, in their order.

        A line that is not whole, since its process was killed, is left out with a
        warning.

        Returns:
          For each run what was said of it, with its name as "name", and its history,
          whose rows are in the order of epochs.

        Raises:
          ValueError: If the file holds something else.
        """
        runs: list[tuple[dict[str, Any], MIHistory]] = []
        lines = Path(path).read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                about = json.loads(line)
                layers = about.pop("history", {})
                runs.append(({"name": about.pop("name"), **about}, cls._of(layers)))
            except _files.BROKEN as error:
                broken = isinstance(error, json.JSONDecodeError)
                torn = broken and _files.is_torn(line)
                if not torn:
                    where = f"line {number}: {error}"
                    raise _files.not_written_by("append_jsonl", path, where) from error
                told = f"{os.fspath(path)!r}: line {number} is not whole and left out."
                warnings.warn(told, stacklevel=2)
        return runs

    def to_tensorboard(self, directory: PathLike) -> None:
        """Writes all rows as TensorBoard scalars, by tensorboardX: no TensorFlow.

        The x axis is the step, or the epoch where steps were not given. To write while
        a run goes on, hand `scalars` to a writer of your own after each epoch.

        Args:
          directory: The run's directory, as ``tensorboard --logdir`` takes.

        Raises:
          ImportError: If tensorboardX is missing: ``pip install tensorboardX``.
        """
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingTypeStubs]

        with SummaryWriter(os.fspath(directory)) as writer:
            for epoch in dict.fromkeys(row["epoch"] for row in self.rows):
                step, scalars = _rows.scalars(self.rows, epoch)
                for tag, value in scalars.items():
                    writer.add_scalar(tag, value, epoch if step is None else step)

    @classmethod
    def _restored(cls, rows: list[dict[str, Any]]) -> MIHistory:
        history = cls()
        for row in rows:
            values: dict[str, Any] = {
                name: math.nan if value is None and name != "step" else value
                for name, value in row.items()
                if name != "normalized_mi"  # as the others say, whatever the file does
            }
            history.add(**values)
        return history

    @classmethod
    def _of(cls, layers: Mapping[str, Mapping[str, list[Any]]]) -> MIHistory:
        missing = {"learning_rate": None, "mi": None}  # where no epoch has one
        rows = [
            {"layer": layer, **missing, **dict(zip(columns, values, strict=True))}
            for layer, columns in layers.items()
            for values in zip(*columns.values(), strict=True)
        ]
        return cls._restored(sorted(rows, key=lambda row: row["epoch"]))
