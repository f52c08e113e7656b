"""METRICS: every figure that a stage reports on the val or the test split.

Sweeps read the direction from here, the command line the allowed values of `sweep_metric`. The
module imports nothing slow. A new score of generated images registers itself: see sample_scores.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A reported figure."""

    name: str  # tag without its split: frechet_distance of val/frechet_distance
    description: str
    direction: Literal["min", "max"] | None = None  # None: neither is better
    unit: str = ""
    stage: Literal["vae", "gan"] = "gan"  # of the model that it measures
    is_sweep_metric: bool = False  # True if a sweep may optimize it


NATS = "nats per image"
VAE_METRICS = (
    Metric("nll", "Importance-weighted -log p(x).", "min", NATS, "vae", is_sweep_metric=True),
    Metric("nll_standard_error", "Standard error of nll over images.", None, NATS, "vae"),
    Metric("elbo", "Evidence lower bound.", "max", NATS, "vae", is_sweep_metric=True),
    Metric("iw_bound", "Importance-weighted bound that was trained.", "max", NATS, "vae"),
    Metric("log_likelihood", "E_q[log p(x|z)].", "max", NATS, "vae", is_sweep_metric=True),
    Metric("kl", "KL(q(z|x) || p(z)).", "min", NATS, "vae", is_sweep_metric=True),
    Metric("bits_per_dim", "nll per pixel and channel.", "min", "bits per dimension", "vae"),
    Metric("active_units", "Latents that carry information.", "max", "latents", "vae"),
    Metric("aggregate_mean_max", "Largest |mean| of a latent under q(z).", stage="vae"),
    Metric("aggregate_std_min", "Least standard deviation of a latent under q(z).", stage="vae"),
    Metric("aggregate_std_max", "Largest standard deviation of a latent under q(z).", stage="vae"),
    Metric("mutual_information", "I(x; z) under q.", None, NATS, "vae"),
    Metric("marginal_kl", "KL(q(z) || p(z)).", None, NATS, "vae"),
)
GAN_METRICS = (
    Metric(
        "frechet_distance",
        "Frechet distance of features.",
        "min",
        "feature units squared",
        is_sweep_metric=True,
    ),
    Metric("kernel_distance", "Squared MMD of features.", "min", is_sweep_metric=True),
    Metric("precision", "Fakes within the real images' manifold.", "max", "share of fakes"),
    Metric("recall", "Real images within the fakes' manifold.", "max", "share of real images"),
    Metric("density", "Real neighborhoods around a fake, over k.", "max"),
    Metric("coverage", "Real neighborhoods with a fake.", "max", "share of real images"),
    Metric("class_coverage", "Real classes that the fakes reach.", "max", "share of classes"),
    Metric("class_kl", "KL(classes of fakes || classes of real images).", "min", "nats"),
    Metric("inception_score", "Diversity of confident class predictions.", "max", "classes"),
    Metric("images", "Real images seen by the discriminator.", unit="images"),
    Metric("generator_updates", "Optimizer steps of the generator.", unit="updates"),
    Metric("compute", "Floating-point operations of the GAN.", unit="PFLOP"),
)
METRICS = {metric.name: metric for metric in (*VAE_METRICS, *GAN_METRICS)}  # in report order


def register_metric(metric: Metric) -> None:
    """Add a metric to METRICS.

    Raises:
        ValueError: Another metric has the same name.
    """
    known = METRICS.setdefault(metric.name, metric)
    if known != metric:
        raise ValueError(f"two metrics are called {metric.name}: {known} and {metric}")


def sweep_metrics(stage: str) -> tuple[str, ...]:
    """Return the metrics of a stage's model that a sweep may optimize; the first is the default."""
    metrics = METRICS.values()
    return tuple(m.name for m in metrics if m.stage == stage and m.is_sweep_metric)


def is_better(name: str, value: float, reference: float) -> bool:
    """True if a value of a metric with a direction is strictly better than a reference."""
    return value < reference if METRICS[name].direction == "min" else value > reference
