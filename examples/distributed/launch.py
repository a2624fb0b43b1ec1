"""Runs `examples.distributed.train` as several processes on this host.

    python -m examples.distributed.launch --processes 2 --epochs 8

Other options go to `train`; `{process}` in them is a process's number. Where a process
dies the others are ended, since they would wait for it.
"""

import argparse
import socket
import subprocess
import sys
import time


def free_port() -> int:
    """A port of this host that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(processes: int, options: list[str]) -> list[subprocess.Popen[bytes]]:
    """Starts the processes; the first is the one that the others ask."""
    coordinator = f"localhost:{free_port()}"
    program = [sys.executable, "-m", "examples.distributed.train"]
    common = ["--coordinator", coordinator, "--processes", str(processes)]
    return [
        subprocess.Popen(
            [*program, *common, "--process-id", str(i)]
            + [option.replace("{process}", str(i)) for option in options]
        )
        for i in range(processes)
    ]


def wait(running: list[subprocess.Popen[bytes]]) -> int:
    """Waits for all to end, and ends all when one fails."""
    while True:
        codes = [process.poll() for process in running]
        if any(codes):
            for process in running:
                process.kill()
            return 1
        if None not in codes:
            return 0
        time.sleep(0.1)


def main(arguments: list[str] | None = None) -> None:
    """Runs them."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.distributed.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, default=2)
    args, options = parser.parse_known_args(arguments)
    sys.exit(wait(start(args.processes, options)))


if __name__ == "__main__":
    main()
