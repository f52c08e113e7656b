"""How far generated images are from real ones, as functions of their features under a fixed network.

    Frechet distance  |mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2))      lower is better, 0 at least
    kernel distance   MMD^2 with the kernel (x.y / D + 1)^3, unbiased          lower is better, may be below 0
    precision         share of the fakes inside a real image's ball            fidelity, higher is better
    recall            share of the reals inside a fake image's ball            variety, higher is better
    density           mean number of real balls around a fake, over k          fidelity, higher is better, may exceed 1
    coverage          share of the real balls that hold a fake                 variety, higher is better

A ball reaches to the k-th nearest neighbor within its own set. Everything is computed in float64, on the device of
the features, out of autocast's reach, from this process's features alone, and depends on nothing but the features:
the same features give the same numbers, and torch's global generators stay as they were.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from vaegan.config import require

NEIGHBORS = 5
KERNEL_SUBSET_SIZE = 1000
KERNEL_SUBSETS = 20
CHUNK = 256  # rows of a distance matrix held at a time: fits the cache of one core, and 20 MB at 10,000 columns


class FeatureBatch(NamedTuple):
    """What a feature network says of N images."""

    features: Tensor  # (N, D)
    logits: Tensor | None = (
        None  # (N, K) class logits or log-probabilities, None of a network without classes
    )


class ManifoldScores(NamedTuple):
    """All in [0, 1] but the density, which may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


class ClassScores(NamedTuple):
    """How the fakes are spread over the classes."""

    covered: int  # classes of the reals that a fake is assigned to
    coverage: float  # the same as a share of the reals' classes
    kl: float  # KL(fake classes || real classes), nats


class NonFiniteError(ValueError):
    """Features that are nan or infinite: they have no distance."""


class PassThrough(nn.Module):
    """Gives torchmetrics features that are computed outside, so that no network enters the metric's state."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def scores(
    real: FeatureBatch, fake: FeatureBatch, *, real_radii: Tensor | None = None
) -> dict[str, float]:
    """All scores under their names, in the order of the module's formulas.

    `class_coverage`, `class_kl` and `inception_score` are there if the feature network has classes.

    Args:
        real: Of N real images.
        fake: Of M fakes. The Frechet and the kernel distance of different numbers of images do not compare.
        real_radii: `radii(real.features)`, if at hand: it saves a quarter of the time.

    Raises:
        ValueError: Features that are not finite, do not fit together, or are of too few images.
    """
    require(
        (real.logits is None) == (fake.logits is None),
        "logits",
        "there for real and fake or for neither",
        "one",
    )
    named = {
        "frechet_distance": frechet_distance(real.features, fake.features),
        "kernel_distance": kernel_distance(real.features, fake.features),
        **manifold_scores(real.features, fake.features, real_radii=real_radii)._asdict(),
    }
    if real.logits is not None and fake.logits is not None:
        classes = class_scores(real.logits, fake.logits)
        named |= {"class_coverage": classes.coverage, "class_kl": classes.kl}
        named["inception_score"] = inception_score(fake.logits)
    return named


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Frechet distance of the Gaussians with the means and covariances of real (N, D) and fake (M, D) features.

    Its estimate falls with the number of images: see `check_enough`.

    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    real, fake = _checked(real, fake)
    # torchmetrics subtracts large numbers, E[x x^T] - mu mu^T: around a common center they are small ones
    center = real.mean(0)
    metric = FrechetInceptionDistance(feature=PassThrough(real.shape[1]), sync_on_compute=False).to(
        real.device
    )
    metric.update(real - center, real=True)
    metric.update(fake - center, real=False)
    return max(float(metric.compute()), 0.0)  # round-off takes the distance of equal sets below 0


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Squared maximum mean discrepancy of real (N, D) and fake (M, D) features, the mean over fixed random subsets.

    Unbiased at any number of images, so that it may be below 0. Subsets have min(1000, N, M) images.

    Source: Binkowski et al. 2018, arXiv:1801.01401 (KID).
    """
    real, fake = _checked(real, fake)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Metric `Kernel Inception Distance` will save all extracted features"
        )
        metric = KernelInceptionDistance(
            feature=PassThrough(real.shape[1]),
            subsets=KERNEL_SUBSETS,
            subset_size=min(KERNEL_SUBSET_SIZE, len(real), len(fake)),
            sync_on_compute=False,
        )
    metric.update(real, real=True)
    metric.update(fake, real=False)
    with torch.random.fork_rng(
        devices=[]
    ):  # torchmetrics draws the subsets from the CPU's global generator
        torch.default_generator.manual_seed(0)
        mean, _ = metric.compute()
    return float(mean)


def radii(features: Tensor, k: int = NEIGHBORS) -> Tensor:
    """Euclidean distance of each feature vector (N, D) to its k-th nearest neighbor among the others, (N,).

    Raises:
        ValueError: Features that are not finite, or of k images or fewer.
    """
    features = _finite(features, "features")
    require(k >= 1, "k", "1 or more", k)
    require(
        len(features) > k,
        "number of images",
        f"more than the k = {k} nearest neighbors",
        len(features),
    )
    nearest = [
        d.topk(k + 1, largest=False, sorted=False).values.amax(1)
        for d in _distances(features, features)
    ]
    return torch.cat(nearest)


def manifold_scores(
    real: Tensor, fake: Tensor, k: int = NEIGHBORS, *, real_radii: Tensor | None = None
) -> ManifoldScores:
    """Fidelity and variety told apart, from balls that reach to the k-th nearest neighbor in the same set.

    A point on the surface of a ball is outside. 10,000 real and fake images are compared pair by pair, but only
    `CHUNK` rows of that matrix are in memory at a time.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).
        k: The neighbor that a ball reaches to.
        real_radii: `radii(real, k)`, if at hand.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 1-2; Naeem et al. 2020, arXiv:2002.09797.
    """
    real, fake = _checked(real, fake)
    real_radii = radii(real, k) if real_radii is None else real_radii.to(real.device)
    require(
        len(real_radii) == len(real),
        "real_radii",
        f"one for each of {len(real)} real images",
        len(real_radii),
    )
    fake_radii = radii(fake, k)
    inside_real = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    balls, recalled, covered = torch.zeros(3, dtype=torch.long, device=real.device)
    for distances, reach in zip(_distances(real, fake), real_radii.split(CHUNK), strict=True):
        inside = distances < reach[:, None]
        inside_real |= inside.any(0)
        balls += inside.count_nonzero()
        covered += inside.any(1).count_nonzero()
        recalled += (distances < fake_radii).any(1).count_nonzero()
    return ManifoldScores(
        precision=float(inside_real.double().mean()),
        recall=int(recalled) / len(real),
        density=int(balls) / (k * len(fake)),
        coverage=int(covered) / len(real),
    )


def inception_score(logits: Tensor) -> float:
    """exp(E_x KL(p(y | x) || p(y))) over all images at once, from 1 to the number of classes; higher is better.

    Under the feature network's own classes, so that it compares with published scores only if the network is
    Inception-v3 and the number of images the same.

    Args:
        logits: Of the fakes, (M, K); log-probabilities will do.

    Source: Salimans et al. 2016, arXiv:1606.03498, section 4.
    """
    log_p = _finite(logits, "fake logits").log_softmax(1)
    log_marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp())


def class_scores(real_logits: Tensor, fake_logits: Tensor) -> ClassScores:
    """Which of the real images' classes the fakes reach, and how evenly; a class is the largest logit of an image.

    The KL divergence is the one of the two histograms as they are, nothing added. Only a class of a fake that no real
    image has, whose term would be infinite, counts as if one more real image had been of that class: the result is
    finite, never negative, and grows with the number of such fakes. Finite samples alone make it positive: with
    balanced classes by about (K - 1) / 2 (1 / N + 1 / M).

    Args:
        real_logits: (N, K). With stacked MNIST, K = 1000 and N large, `covered` is the number of modes.
        fake_logits: (M, K).

    Source: Metz et al. 2017, arXiv:1611.02163, section 3.3.1; Lin et al. 2018, arXiv:1712.04086 (PacGAN).
    """
    real_logits, fake_logits = _checked(real_logits, fake_logits, "logits")
    num_classes = real_logits.shape[1]
    real = real_logits.argmax(1).bincount(minlength=num_classes)
    fake = fake_logits.argmax(1).bincount(minlength=num_classes)
    covered = int(((real > 0) & (fake > 0)).sum())
    q = torch.where((real == 0) & (fake > 0), 1, real).double()
    p = fake.double() / fake.sum()
    kl = torch.special.xlogy(p, p).sum() - torch.special.xlogy(p, q / q.sum()).sum()
    return ClassScores(covered, covered / int((real > 0).sum()), max(float(kl), 0.0))


def check_enough(num_images: int, num_features: int, key: str) -> None:
    """Refuse so few images that the covariance in the Frechet distance is singular.

    Args:
        num_images: Images on each side.
        num_features: D of the feature network.
        key: Name under which the user sets the number of images.

    Raises:
        ValueError: if there are not more images than features.
    """
    expected = (
        f"{num_features + 1} or more, better {10 * num_features}: the Frechet distance estimates the covariance of "
        f"{num_features} features, which is singular with fewer images and of little use with few more"
    )
    require(num_images > num_features, key, expected, num_images)


def _checked(real: Tensor, fake: Tensor, what: str = "features") -> tuple[Tensor, Tensor]:
    """Both in float64, found to be finite and to fit together."""
    real, fake = _finite(real, f"real {what}"), _finite(fake, f"fake {what}")
    expected = f"as wide as the real ones, {real.shape[1]}, and on the same device, {real.device}"
    fits = real.shape[1] == fake.shape[1] and real.device == fake.device
    require(fits, f"fake {what}", expected, (fake.shape[1], str(fake.device)))
    return real, fake


def _finite(features: Tensor, name: str) -> Tensor:
    """Features (N, D) in float64 without their graph. On Apple's GPU, which has no float64, they go to the CPU."""
    require(
        features.ndim == 2 and len(features) >= 2,
        name,
        "of shape (N, D), N at least 2",
        tuple(features.shape),
    )
    bad = int((~features.isfinite()).any(1).sum())
    if bad:
        raise NonFiniteError(
            f"{name} must be finite: the generator or the feature network produced non-finite values; got nan or inf "
            f"in {bad} of {len(features)} images"
        )
    features = features.detach()
    return (features.cpu() if features.device.type == "mps" else features).double()


def _distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Euclidean distances of `CHUNK` rows of `a` (N, D) at a time to all of `b` (M, D): float32, (CHUNK, M).

    The product |a|^2 + |b|^2 - 2 a.b is five times faster than differences. In float32 it would lose the distances of
    near neighbors; in float64 it is exact to about 1e-8 of the features' size, and rounding it to float32 makes
    equal pairs equal again, which the strict comparison with a radius rests on.
    """
    center = b.mean(0)
    a, b = a - center, b - center
    for rows in a.split(CHUNK):
        yield torch.cdist(rows, b, compute_mode="use_mm_for_euclid_dist").float()
