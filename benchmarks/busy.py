"""Measure what another busy process costs a training step, by wait policy and number of threads.

    python benchmarks/busy.py [--rounds 6] [--seconds 4]

One process per row of the table trains the default VAE in a plain loop. They take turns: one runs,
the others are stopped. In the second half of each round, another process keeps one core busy. Turns
are short, so that other work on the machine falls on all rows alike.

passive    all threads; waiting threads sleep; vaegan sets it on the command line
default    all threads; OMP_WAIT_POLICY is not set: waiting threads spin for a while, then sleep
active     all threads; waiting threads spin
free cores one fewer thread, OMP_NUM_THREADS=C-1 on C cores, with the passive policy

The table shows medians over rounds: milliseconds per step alone; times alone and next to the busy
process, each divided by those of `passive` in the same round (smallest and largest in parentheses);
and the time next to the busy process divided by that of `passive` alone. A training that loses no
more than the busy core takes C / (C - 1) times as long on C cores.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

ENDLESS_LOOP = [sys.executable, "-c", "while True: pass"]
NUM_FREE_CORES = max(1, (os.cpu_count() or 2) - 1)
FREE_CORES = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(NUM_FREE_CORES)}
SETTINGS = {  # environment variables by row of the table
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "default": {},
    "active": {"OMP_WAIT_POLICY": "active"},
    "free cores": FREE_CORES,
}
SETTLING_SECONDS = 0.3  # at the start of a turn, not measured


def train(counter):
    """Train in an endless loop and append a byte to a file after each step."""
    import torch
    from throughput import ImageDataModule, Mnist, batches, compose, register

    from vaegan.stages import vae

    register()
    torch.set_flush_denormal(True)
    run = compose("stage=vae")
    data = ImageDataModule(Mnist.Config().build(), run.loader, seed=0)
    model = vae.build_initial_vae(run, data).to(memory_format=torch.channels_last)
    objective = run.objective.build()
    optimizer, _ = run.optimizer.build(model.parameters(), lambda: 1)
    with counter.open("ab", buffering=0) as file:
        while True:
            for x in batches(data, 1):
                loss = objective(model, x, 1.0).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                file.write(b".")


@contextmanager
def running(command, environment=None):
    """Run a command in the context."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start(row, counter, stack):
    """Return a stopped process that trains with the settings of a row, after its first steps."""
    environment = {name: os.environ[name] for name in os.environ if name not in FREE_CORES}
    environment |= SETTINGS[row]
    counter.touch()
    command = [sys.executable, __file__, "--worker", str(counter)]
    process = stack.enter_context(running(command, environment))
    while counter.stat().st_size < 3:
        if process.poll() is not None:
            raise SystemExit(f"the training with {row} failed")
        time.sleep(0.1)
    process.send_signal(signal.SIGSTOP)
    return process


def take_turn(process, counter, seconds):
    """Return the milliseconds per step of a process while it runs for the given time."""
    process.send_signal(signal.SIGCONT)
    time.sleep(SETTLING_SECONDS)
    num_steps, started = counter.stat().st_size, time.perf_counter()
    time.sleep(seconds)
    num_steps = counter.stat().st_size - num_steps
    elapsed = time.perf_counter() - started
    process.send_signal(signal.SIGSTOP)
    if num_steps == 0:
        raise SystemExit(f"no step in {seconds} seconds; set --seconds to a larger number")
    return 1e3 * elapsed / num_steps


def measure(rounds, seconds):
    """Return the milliseconds per step in each round, by row: alone, next to a busy process."""
    times = {row: ([], []) for row in SETTINGS}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        counters = {row: Path(folder, row) for row in SETTINGS}
        processes = {row: start(row, counters[row], stack) for row in SETTINGS}
        for _ in range(rounds):
            for row, (alone, _) in times.items():
                alone.append(take_turn(processes[row], counters[row], seconds))
            with running(ENDLESS_LOOP):
                for row, (_, busy) in times.items():
                    busy.append(take_turn(processes[row], counters[row], seconds))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        train(args.worker)
    times = measure(args.rounds, args.seconds)
    passive_alone = statistics.median(times["passive"][0])
    for row, (alone, busy) in times.items():
        text = f"{row:10} alone {statistics.median(alone):7.1f} ms"
        sides = zip(("alone", "busy"), (alone, busy), times["passive"], strict=True)
        for name, own, passive in sides:
            ratios = [a / b for a, b in zip(own, passive, strict=True)]
            text += f", {name} / passive {statistics.median(ratios):.2f} "
            text += f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{text}, busy / passive alone {statistics.median(busy) / passive_alone:.2f}")


if __name__ == "__main__":
    main()
