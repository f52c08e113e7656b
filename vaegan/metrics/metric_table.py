"""Table of all metrics that stages report, METRICS.

Sweeps read the direction of a metric from it, and the command line reads the allowed values of
`sweep_metric`. This module imports no slow library. New scores of generated images are added by
their decorator (see sample_scores.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric that a stage reports."""

    name: str  # tag without split, such as frechet_distance for val/frechet_distance
    description: str
    direction: Literal["min", "max"] | None = None  # better direction; None: neither
    unit: str = ""  # "" if the metric has no unit
    stage: Literal["vae", "gan"] = "gan"  # stage that trains the measured model
    is_sweep_metric: bool = False  # True if a sweep may optimize it


# may select the best checkpoint of a GAN
MONITORS = ("frechet_distance", "combined_distance", "kernel_distance")
NATS = "nats per image"
VAE_METRICS = (
    Metric("nll", "Importance-weighted -log p(x).", "min", NATS, "vae", is_sweep_metric=True),
    Metric("nll_standard_error", "Standard error of nll over images.", None, NATS, "vae"),
    Metric("elbo", "Evidence lower bound.", "max", NATS, "vae", is_sweep_metric=True),
    Metric("iw_bound", "Importance-weighted bound used in training.", "max", NATS, "vae"),
    Metric("log_likelihood", "E_q[log p(x|z)].", "max", NATS, "vae", is_sweep_metric=True),
    Metric("kl", "KL(q(z|x) || p(z)).", "min", NATS, "vae", is_sweep_metric=True),
    Metric("bits_per_dim", "nll per pixel and channel.", "min", "bits per dimension", "vae"),
    Metric("active_units", "Number of active latents.", "max", "latents", "vae"),
    Metric("aggregate_mean_max", "Largest |mean| of a latent under q(z).", stage="vae"),
    Metric("aggregate_std_min", "Smallest standard deviation of a latent under q(z).", stage="vae"),
    Metric("aggregate_std_max", "Largest standard deviation of a latent under q(z).", stage="vae"),
    Metric("mutual_information", "I(x; z) under q.", None, NATS, "vae"),
    Metric("marginal_kl", "KL(q(z) || p(z)).", None, NATS, "vae"),
    Metric("reconstruction_psnr", "PSNR of reconstructions.", "max", "dB", "vae"),
    Metric("reconstruction_ssim", "Structural similarity of reconstructions.", "max", "", "vae"),
)
GAN_METRICS = (
    Metric(
        "frechet_distance",
        "Frechet distance between feature distributions.",
        "min",
        "squared feature units",
        is_sweep_metric=True,
    ),
    Metric(
        "combined_distance",
        "Geometric mean of frechet_distance and sliced_wasserstein.",
        "min",
        is_sweep_metric=True,
    ),
    Metric("kernel_distance", "Squared MMD of features.", "min", is_sweep_metric=True),
    Metric("sliced_wasserstein", "Sliced Wasserstein distance of pixel patches, x 1000.", "min"),
    Metric("local_contrast_distance", "Distance between the distributions of log contrast.", "min"),
    Metric(
        "color_contrast_distance",
        "Distance between the distributions of log color contrast.",
        "min",
    ),
    Metric(
        "border_contrast_distance",
        "Difference in the contrast near the border, divided by the contrast farther in.",
        "min",
    ),
    Metric("pattern_repetition", "Pairs with the same pattern; 1: as in real images.", "min"),
    Metric("precision", "Fake images in the real manifold.", "max", "fraction of fake images"),
    Metric("recall", "Real images in the fake manifold.", "max", "fraction of real images"),
    Metric("density", "Mean number of real neighborhoods around a fake image, / k.", "max"),
    Metric("coverage", "Real neighborhoods with a fake image.", "max", "fraction of real images"),
    Metric("class_coverage", "Real classes with a fake image.", "max", "fraction of classes"),
    Metric("class_kl", "KL(fake class histogram || real class histogram).", "min", "nats"),
    Metric("inception_score", "Diversity of confident class predictions.", "max", "classes"),
    Metric(
        "memorized_fraction",
        "Fake images closer to a training image than 95% of held-out images are.",
        "min",
        "fraction of fake images",
    ),
    Metric("images", "Real images seen by the discriminator.", unit="images"),
    Metric("generator_updates", "Optimizer steps of the generator.", unit="updates"),
    Metric("compute", "Floating-point operations of GAN training.", unit="PFLOP"),
)
METRICS = {metric.name: metric for metric in (*VAE_METRICS, *GAN_METRICS)}  # in report order


def register_metric(metric: Metric) -> None:
    """Add a metric to METRICS.

    Raises:
        ValueError: Another metric has the same name.
    """
    known = METRICS.setdefault(metric.name, metric)
    if known != metric:
        raise ValueError(f"metric names must be unique; got {metric.name} twice: {known}, {metric}")


def sweep_metrics(stage: str) -> tuple[str, ...]:
    """Return the metrics of a stage that sweeps can optimize; the first one is the default."""
    metrics = METRICS.values()
    return tuple(m.name for m in metrics if m.stage == stage and m.is_sweep_metric)


def is_better(name: str, value: float, reference: float) -> bool:
    """True if `value` is strictly better than `reference` for a metric with a direction."""
    return value < reference if METRICS[name].direction == "min" else value > reference
