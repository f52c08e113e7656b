"""Compare the importance-sampled likelihood of a VAE with the decoder's forward passes alone.

    OMP_NUM_THREADS=1 python benchmarks/likelihood.py [--images 20] [--samples 1000] [--rounds 5]

Both decode images * samples latents in chunks of 1,000 without gradients; the likelihood also
encodes, samples, and evaluates log p(x|z), p(z) and q(z|x). The time is linear in the number of
images, so a few suffice. Each round measures both in turn. The ratio is the likelihood's time over
the decoder's time: median over rounds, smallest and largest.
"""

import argparse
import statistics
import time

import torch

from vaegan.data.mnist import Mnist
from vaegan.images import to_float
from vaegan.vae.evaluation import score_images
from vaegan.vae.model import VAE

CHUNK_SIZE = 1000
LATENT_DIM = 32


@torch.no_grad()
def time_decoder(vae, num_latents):
    """Return the seconds of the decoder's forward passes."""
    chunks = torch.randn(num_latents, LATENT_DIM).split(CHUNK_SIZE)
    start = time.perf_counter()
    for z in chunks:
        vae.decoder(z)
    return time.perf_counter() - start


@torch.no_grad()
def time_likelihood(vae, target, num_samples):
    """Return the seconds of scoring images."""
    start = time.perf_counter()
    score_images(vae, target, num_samples, CHUNK_SIZE)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    vae = VAE((1, 28, 28)).to(memory_format=torch.channels_last).eval()
    images = to_float(Mnist.Config().build().split("test").images[: args.images])
    target = vae.likelihood.target(images)
    num_latents = args.images * args.samples
    time_decoder(vae, CHUNK_SIZE)
    pairs = [
        (time_likelihood(vae, target, args.samples), time_decoder(vae, num_latents))
        for _ in range(args.rounds)
    ]
    ratios = [likelihood / decoder for likelihood, decoder in pairs]
    likelihood, decoder = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"likelihood {likelihood:.2f} s, decoder {decoder:.2f} s for {num_latents:,} latents")
    print(
        f"likelihood / decoder: {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
