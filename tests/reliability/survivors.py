"""The changes of mutants.py that no test notices, and why, by file.

Each is the line with its change marked, as `make mutants` prints it.
"""

import re

SURVIVORS: dict[str, dict[str, list[str]]] = {}


def before(change: str) -> str:
    """The line as it stands."""
    return re.sub("⟦(.*?) → .*?⟧", r"\1", change)


def tables() -> dict[str, str]:
    """What docs/reliability.md says."""
    lines = []
    for module, reasons in SURVIVORS.items():
        for reason, changes in reasons.items():
            lines.append(f"- `{module}`: {reason}")
            lines += [f"  - `{change}`" for change in changes]
    return {"survivors": "\n".join(lines)}
