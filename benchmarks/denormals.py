"""Time forward and backward passes of a GAN's generator with and without denormal numbers.

    python benchmarks/denormals.py GAN_RUN [--rounds 9]

Where the sigmoid of a trained generator is saturated, its exact gradients (saturation_logit=0) are
denormal, and runs of vaegan treat these as zero. Each round measures both settings on the CPU, in
one thread, on the same latents and in alternating order. The ratio is the time without denormal
numbers over the time with them: median over rounds, smallest and largest.
"""

import argparse
import statistics
import time
from contextlib import nullcontext

import torch

from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.checkpoints.find_checkpoint import find_checkpoint
from vaegan.runtime.denormals import denormals_as_zero

NUM_STEPS = 5
BATCH_SIZE = 64
SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


def denormal_fraction(values):
    """Return the fraction of denormal numbers."""
    return ((values != 0) & (values.abs() < SMALLEST_NORMAL)).float().mean().item()


def loss_of(images, weights):
    """Return a loss that is linear in the images, as the mean over the batch."""
    return (images * weights).sum() / len(images)


def time_steps(generator, z, weights):
    """Return the seconds of some forward and backward passes."""
    start = time.perf_counter()
    for _ in range(NUM_STEPS):
        loss_of(generator(z), weights).backward()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ckpt")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(find_checkpoint(args.ckpt, "ckpt", ("gan",)))
    generator = checkpoint.build_generator().to(memory_format=torch.channels_last).train()
    z = checkpoint.build_latents()().sample((BATCH_SIZE,))
    logits = generator.decoder(z).detach().requires_grad_()
    images = generator.likelihood(logits).mean
    weights = torch.randn_like(images)
    loss_of(images, weights).backward()
    print(f"denormal gradients of the logits: {denormal_fraction(logits.grad):.3f}")
    ratios = []
    for i in range(args.rounds):
        seconds = {}
        for setting in (True, False) if i % 2 else (False, True):
            with denormals_as_zero() if setting else nullcontext():
                seconds[setting] = time_steps(generator, z, weights)
        ratios.append(seconds[True] / seconds[False])
    low, median, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"time without denormal numbers / with: {median:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
