"""What a command says: errors, remarks, progress and tables."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

# Seconds after which a command that is not done says so.
PATIENCE = 2.0
_CLEAR = "\r\033[K"


class InputError(Exception):
    """What was given cannot be used; the message says why in one sentence."""


def say(message: str) -> None:
    """Remarks, apart from results."""
    print(f"{_CLEAR if _on_terminal() else ''}{message}", file=sys.stderr)


def _on_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Progress:
    """A line that says, on a terminal, what takes long and how long it has taken."""

    def __init__(self, task: str) -> None:
        self._task, self._part = task, ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def count(self, items: Sequence[Any]) -> Iterator[Any]:
        """The items, of which the line says how many are done."""
        for i, item in enumerate(items):
            self._part = f", {i} of {len(items)}"
            yield item

    def __enter__(self) -> Progress:
        if _on_terminal():
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tell(self) -> None:
        start, wait = time.monotonic(), PATIENCE
        while not self._done.wait(wait):
            wait = PATIENCE / 4
            line = f"{self._task}{self._part}: {time.monotonic() - start:.0f} s"
            print(_CLEAR + line, end="", file=sys.stderr, flush=True)
        print(_CLEAR, end="", file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 0) -> str:
    """A Markdown table in aligned columns, the first ones of words, then numbers."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        sides = [str.ljust] * words + [str.rjust] * (len(head) - words)
        padded = (f(c, w) for f, c, w in zip(sides, cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rules = ["-" * (w + 1) + ("-" if i < words else ":") for i, w in enumerate(widths)]
    return "\n".join([line(head), f"|{'|'.join(rules)}|", *map(line, lines[1:])])
