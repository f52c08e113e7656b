"""Time the start of the command line, with commands that train nothing.

    python benchmarks/startup.py [--rounds 3] [--output FILE]

Each round starts one process per command, in turn. The table shows the median and the range of the
seconds, and the median relative to a process that only imports torch and lightning.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "import torch, lightning": ["-c", "import torch, lightning"],
    "--help": ["train.py", "--help"],
    "misspelled key": ["train.py", "stage=vae", "optimizer.lrr=1"],
    "misspelled stage": ["train.py", "stage=vaee"],
}


def time_command(words):
    """Return the seconds of a process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    seconds = {name: [] for name in COMMANDS}
    for _ in range(args.rounds):
        for name, words in COMMANDS.items():
            seconds[name].append(time_command(words))
    imports = statistics.median(seconds["import torch, lightning"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(
            f"{name:24} {median:6.2f} s ({min(values):.2f} to {max(values):.2f}), "
            f"{median / imports:.2f} of the imports"
        )
    if args.output:
        args.output.write_text(json.dumps(seconds, indent=1))


if __name__ == "__main__":
    main()
