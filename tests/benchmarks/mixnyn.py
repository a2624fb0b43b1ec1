"""`ksg`, algorithm 2, beside the authors' own program: values of docs/accuracy.md.

    python tests/benchmarks/mixnyn.py FOLDER

The values are those of MIxnyn (Kraskov et al.) that the tests of JIDT quote
(MutualInfoMultiVariateTester.java). FOLDER is `demos/data` of JIDT, whose files they
are for: https://github.com/jlizier/jidt.
"""

import sys
from pathlib import Path

import jax
import numpy as np

import optax_mi

KS = (1, 2, 3, 4, 5, 6, 10, 15)
RANDOM, DIRECT, NOISY = (
    f"4{name}-1"
    for name in (
        "randomCols",
        "ColsPairedDirectDependence",
        "ColsPairedNoisyDependence",
    )
)
# A file, the features of X, the rows that are repeated, and a value for each k.
ROWS = [
    (RANDOM, 2, 0, "0.02886644 0.01071634 0.00186857 -0.00377259 -0.00634851 "
     "-0.00863725 -0.01058087 -0.01106348"),
    (RANDOM, 1, 0, "0.02473475 0.00404451 -0.00454679 -0.00737512 -0.00464896 "
     "-0.00610772 -0.00881741 -0.01306668"),
    (DIRECT, 2, 0, "5.00322122 4.29011291 3.91312749 3.69192886 3.52807488 "
     "3.39865354 3.05327646 2.79951639"),
    (NOISY, 2, 0, "0.33738970 0.36251531 0.34708687 0.36200563 0.35766125 "
     "0.35007623 0.35023664 0.33728287"),
    (RANDOM, 2, 30, "0.16846374 0.04091779 0.02069109 0.00700680 0.00121768 "
     "-0.00134164 -0.00870685 -0.00966508"),
]  # fmt: skip


def main(folder: Path) -> None:
    """Prints the largest difference over k for each row."""
    jax.config.update("jax_enable_x64", True)
    print("| data | features | rows repeated | largest difference, nats |")
    print("|---|---|---|---|")
    for name, split, repeated, values in ROWS:
        data = np.loadtxt(folder / f"{name}.txt", comments="%")
        data = np.concatenate([data, data[:repeated]])
        x, y = data[:, :split], data[:, split:]
        found = [float(optax_mi.ksg(x, y, k=k, algorithm=2)) for k in KS]
        difference = np.abs(np.array(found) - np.array(values.split(), float)).max()
        print(f"| {name} | {split} + {4 - split} | {repeated} | {difference:.0e} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
