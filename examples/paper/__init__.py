"""The paper's experiments as programs: `python -m examples.paper.run --list`."""
