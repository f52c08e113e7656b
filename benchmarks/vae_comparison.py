"""Compare VAEs as starts of a GAN on a folder of color images, after equal CPU time.

    OMP_NUM_THREADS=1 python benchmarks/vae_comparison.py IMAGES [--seconds 60] [--seeds 2]
        [--size 32] [--choices gaussian,laplace]

Each VAE is trained in a plain loop, whose learning rate falls to zero as the time ends. Held-out
images are those of val and test. The columns:

    steps       updates of the weights
    bits/dim    negative ELBO of held-out images with one sample of z; lower is better
    KL          its KL term, in nats per image
    FD          Frechet distance of the decoder's mean images to held-out images, in `pyramid`
                features, with latents from the prior p(z) / from a single normal fitted to the
                aggregate posterior; lower is better
    SW          their sliced Wasserstein distance
    sharpness   their mean absolute difference to a blurred version, over that of held-out images

The last row has training images instead of samples. Values are medians over seeds.
"""

import argparse
import math
import statistics
import time

import torch
from torch import nn

from vaegan.data.image_folder import ImageFolder
from vaegan.gan.latents import AggregatePosterior
from vaegan.images import to_float, to_uint8
from vaegan.metrics.feature_extractors import PyramidExtractor
from vaegan.metrics.sample_scores import FeatureBatch
from vaegan.metrics.scores import frechet_distance
from vaegan.metrics.sliced_wasserstein import blur, sliced_wasserstein
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.probability.priors import Prior
from vaegan.vae.bounds import elbo
from vaegan.vae.model import VAE, VAEConfig

BATCH_SIZE = 64
LEARNING_RATE = 3e-3
WARMUP = 0.05  # fraction of the time in which the learning rate rises
NUM_INITIAL_IMAGES = 500  # training images that initialize the prior and the output


def likelihood(name, **settings):
    return {"likelihood": Likelihood.choices[name].Config(**settings)}


def prior(name):
    return {"prior": Prior.choices[name].Config()}


# The settings of each choice that differ from those of the first one.
CHOICES = {
    "gaussian": {},
    "gaussian, scale per channel": likelihood("gaussian", scale="per_channel"),
    "gaussian, optimal scale": likelihood("gaussian", scale="optimal"),
    "laplace": likelihood("laplace"),
    "discretized_logistic_mixture": likelihood("discretized_logistic_mixture"),
    "beta=0.3": {"beta": 0.3},
    "latent_dim=128": {"latent_dim": 128},
    "vamp_prior": prior("vamp_prior"),
    "flow prior": prior("flow"),
    "gaussian_mixture prior": prior("gaussian_mixture"),
}


def load_images(root, size):
    """Return the training images and the held-out images of a folder, in [0, 1]."""
    source = ImageFolder.Config(root=root, image_size=size).build()
    source.prepare()
    splits = [source.split(name).images for name in ("train", "val", "test")]
    train, *held_out = [to_float(images[torch.arange(len(images))]) for images in splits]
    return train, torch.cat(held_out)


def train_vae(images, seconds, beta=1.0, **settings):
    """Train a VAE for the given CPU time; return it with the number of steps."""
    vae = VAE(tuple(images.shape[1:]), VAEConfig(**{**likelihood("gaussian"), **settings}))
    vae.initialize(images[torch.randint(len(images), (NUM_INITIAL_IMAGES,))])
    vae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), fused=True)
    start, num_steps = time.process_time(), 0
    while (fraction := (time.process_time() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            decay = (1 + math.cos(math.pi * fraction)) / 2
            group["lr"] = LEARNING_RATE * min(1, fraction / WARMUP) * decay
        batch = images[torch.randint(len(images), (BATCH_SIZE,))]
        target = vae.likelihood.target(batch.contiguous(memory_format=torch.channels_last))
        terms = elbo(vae, target, vae.encode(target), vae.latent_prior())
        optimizer.zero_grad()
        (-(terms.log_likelihood - beta * terms.kl).mean() / target[0].numel()).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        num_steps += 1
    return vae.eval(), num_steps


def sharpness(images):
    return float((images - blur(images)).abs().mean())


@torch.no_grad()
def score_samples(images, held_out):
    """Return FD, sliced Wasserstein distance and relative sharpness of images."""
    images = to_uint8(images)
    extractor = PyramidExtractor.Config().build(VAE(tuple(images.shape[1:])), None)
    real, fake = (
        FeatureBatch(extractor(to_float(x)), images=x) for x in (to_uint8(held_out), images)
    )
    ratio = sharpness(to_float(images)) / sharpness(held_out)
    return [frechet_distance(real, fake), sliced_wasserstein(real, fake), ratio]


@torch.no_grad()
def score_vae(vae, train, held_out):
    """Return bits/dim and KL, and the scores of samples for both latent distributions."""
    target = vae.likelihood.target(held_out, seed=0)
    terms = elbo(vae, target, vae.encode(target), vae.latent_prior())
    bits = vae.likelihood.bits_per_dim(terms.value.mean())
    aggregate = AggregatePosterior(latent_dim=vae.latent_prior().event_shape[0])
    aggregate.fit(vae, train.split(500), bandwidth=1.0)
    scores = []
    for latents in (vae.latent_prior(), aggregate()):
        chunks = latents.sample((len(held_out),)).split(200)
        samples = torch.cat([vae.decode(z).mean for z in chunks])
        scores.append(score_samples(samples, held_out))
    return [float(bits), float(terms.kl.mean())], scores


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--choices", default=";".join(CHOICES), help="separated by ;")
    args = parser.parse_args()
    train, held_out = load_images(args.root, args.size)
    print(f"{len(train)} training and {len(held_out)} held-out images, {args.seconds:g} s each")
    print("| VAE | steps | bits/dim | KL | FD | SW | sharpness |\n|---|---|---|---|---|---|---|")
    for name in args.choices.split(";"):
        runs = []
        for seed in range(args.seeds):
            torch.manual_seed(seed)
            vae, num_steps = train_vae(train, args.seconds, **CHOICES[name])
            runs.append((num_steps, *score_vae(vae, train, held_out)))
        steps, (bits, kl), scores = (median(values) for values in zip(*runs, strict=True))
        (fd, sw, sharp), (fd_fit, sw_fit, sharp_fit) = scores
        print(
            f"| {name} | {steps:.0f} | {bits:.2f} | {kl:.1f} | {fd:.1f} / {fd_fit:.1f} "
            f"| {sw:.0f} / {sw_fit:.0f} | {sharp:.2f} / {sharp_fit:.2f} |",
            flush=True,
        )
    other = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
    fd, sw, sharp = score_samples(other[: len(held_out)], held_out)
    print(f"| training images | | | | {fd:.1f} | {sw:.0f} | {sharp:.2f} |")


def median(values):
    """Return the medians of numbers, or of nested lists of numbers."""
    if isinstance(values[0], list):
        return [median(column) for column in zip(*values, strict=True)]
    return statistics.median(values)


if __name__ == "__main__":
    main()
