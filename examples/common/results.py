"""The runs of an experiment, kept as the lines of one file."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import optax_mi

PACKAGES = ("optax_mi", "jax", "jaxlib", "flax", "optax", "numpy")


class Result(NamedTuple):
    """A run, or a curve, which has no history."""

    about: Mapping[str, Any]  # its name, configuration and environment; a curve
    history: optax_mi.MIHistory

    @property
    def config(self) -> dict[str, Any]:
        """The settings that it depends on."""
        return self.about["config"]


def recorded(path: Path) -> list[Result]:
    """All runs of a file, none where there is no file."""
    if not path.exists():
        return []
    return [Result(*run) for run in optax_mi.MIHistory.from_jsonl(path)]


def find(results: Sequence[Result], config: Mapping[str, Any]) -> Result | None:
    """The run of a configuration, if it is there."""
    as_kept = json.loads(json.dumps(config))
    return next((result for result in results if result.config == as_kept), None)


def rounded(values: Iterable[Any]) -> list[float]:
    """To five significant digits, as a history's."""
    return [float(f"{value:.5g}") for value in values]


def environment() -> dict[str, Any]:
    """What a result depends on beside its configuration."""
    device = jax.devices()[0]
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return {
        "device": f"{device.platform} {device.device_kind}",
        "machine": f"{platform.machine()}, {_processor()}",
        "processors": len(affinity(0)) if affinity else os.cpu_count(),  # may be used
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    told = Path("/proc/cpuinfo")  # Linux tells the model's name in this file alone
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
