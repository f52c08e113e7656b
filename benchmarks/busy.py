"""Measure what another busy process costs a training step, by OpenMP's wait policy.

    python benchmarks/busy.py [--rounds 3] [--fraction 0.1]

Each round trains a fraction of an epoch of the default VAE four times, each time in a new process:
with OMP_WAIT_POLICY=passive, which the command line sets, and with active, alone and next to a
process that keeps one core busy. A training that loses no more than that core takes C / (C - 1)
times as long on C cores. The table shows the median milliseconds per step and the ratio busy/alone.
"""

import argparse
import os
import statistics
import subprocess
import sys

ENDLESS_LOOP = [sys.executable, "-c", "while True: pass"]
POLICIES = ("passive", "active")


def time_step(policy, is_busy, fraction):
    """Return the milliseconds of a training step in a new process."""
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, __file__, "--worker", "--fraction", str(fraction)]
    other = subprocess.Popen(ENDLESS_LOOP) if is_busy else None
    try:
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return float(ended.stdout)


def train(fraction):
    """Train and print the median milliseconds of a step."""
    from throughput import compose, register, time_vaegan  # imports torch

    register()
    words = ["stage=vae", "trainer.max_epochs=1", "objective.beta_warmup_epochs=0"]
    print(time_vaegan(compose(*words, f"trainer.limit_train_batches={fraction}"))[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        train(args.fraction)
        return
    for policy in POLICIES:
        rounds = [[time_step(policy, i, args.fraction) for i in (0, 1)] for _ in range(args.rounds)]
        alone, busy = (statistics.median(times) for times in zip(*rounds, strict=True))
        print(f"{policy:8} alone {alone:8.1f} ms, busy {busy:8.1f} ms, ratio {busy / alone:.2f}")


if __name__ == "__main__":
    main()
