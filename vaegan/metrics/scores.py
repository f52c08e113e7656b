"""Scores of generated images, as functions of their features under a fixed network.

    Frechet distance  |mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2))   lower is better, >= 0
    kernel distance   MMD^2 with the kernel (x.y / D + 1)^3, unbiased       lower is better
    precision         share of the fakes inside a real image's ball         fidelity, higher
    recall            share of the reals inside a fake image's ball         diversity, higher
    density           mean number of real balls around a fake, over k       fidelity, higher
    coverage          share of the real balls that hold a fake              diversity, higher

A ball reaches to the k-th nearest neighbor within its own set; a point on its surface is outside.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from vaegan.config import require
from vaegan.metrics.metric_table import METRICS
from vaegan.metrics.sample_scores import (
    NEIGHBORS,
    SAMPLE_SCORES,
    FeatureBatch,
    check_finite,
    check_pair,
    iterate_distances,
    sample_score,
)

KERNEL_SUBSET_SIZE = 1000
KERNEL_SUBSETS = 20


def compute_scores(real: FeatureBatch, fake: FeatureBatch) -> dict[str, float]:
    """Return all registered scores by name, in the order of METRICS.

    Args:
        real: N real images.
        fake: M generated images. The Frechet and the kernel distance depend on N and M.

    Raises:
        ValueError: Features that are not finite, do not fit together, or are of too few images.
    """
    has_classes = real.logits is not None
    expected = "given for real and fake or for neither"
    require(has_classes == (fake.logits is not None), "logits", expected, "one")
    found: dict[str, float] = {}
    for name in METRICS:
        score = SAMPLE_SCORES.get(name)
        if score is None or (score.needs_classes and not has_classes):
            continue
        result = score.function(real, fake)
        found |= result if isinstance(result, dict) else {name: result}
    return found


class PassThrough(nn.Module):
    """Feature network of torchmetrics that returns features computed elsewhere."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


@sample_score(METRICS["frechet_distance"])
def frechet_distance(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return the Frechet distance of the Gaussians with the features' means and covariances.

    Its estimate falls with the number of images: see `check_num_images`.

    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    x, y = check_pair(real.features, fake.features)
    # torchmetrics subtracts E[x x^T] - mu mu^T, which are small numbers around a common center
    center = x.mean(0)
    network = PassThrough(x.shape[1])
    metric = FrechetInceptionDistance(feature=network, sync_on_compute=False).to(x.device)
    metric.update(x - center, real=True)
    metric.update(y - center, real=False)
    return max(float(metric.compute()), 0.0)  # round-off takes the distance of equal sets below 0


@sample_score(METRICS["kernel_distance"])
def kernel_distance(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return the squared maximum mean discrepancy, averaged over fixed random subsets.

    It is unbiased for any number of images, hence may be negative. Subsets have min(1000, N, M)
    images.

    Source: Binkowski et al. 2018, arXiv:1801.01401 (KID).
    """
    x, y = check_pair(real.features, fake.features)
    with warnings.catch_warnings():
        message = "Metric `Kernel Inception Distance` will save all extracted features"
        warnings.filterwarnings("ignore", message=message)
        metric = KernelInceptionDistance(
            feature=PassThrough(x.shape[1]),
            subsets=KERNEL_SUBSETS,
            subset_size=min(KERNEL_SUBSET_SIZE, len(x), len(y)),
            sync_on_compute=False,
        )
    metric.update(x, real=True)
    metric.update(y, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torchmetrics draws the subsets from it
        mean, _ = metric.compute()
    return float(mean)


@sample_score(*(METRICS[name] for name in ("precision", "recall", "density", "coverage")))
def manifold_scores(real: FeatureBatch, fake: FeatureBatch, k: int = NEIGHBORS) -> dict[str, float]:
    """Return fidelity and diversity, from balls that reach to the k-th neighbor in the same set.

    All pairs are compared, but only a few rows of their distances are in memory at a time.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 1-2 (precision, recall); Naeem et al.
        2020, arXiv:2002.09797 (density, coverage).
    """
    x, y = check_pair(real.features, fake.features)
    real_radii = real.radii(k)
    fake_radii = fake.radii(k)
    is_precise = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    num_balls, num_recalled, num_covered = torch.zeros(3, dtype=torch.long, device=x.device)
    for rows, distances in iterate_distances(x, y):
        is_inside = distances < real_radii[rows, None]
        is_precise |= is_inside.any(0)
        num_balls += is_inside.count_nonzero()
        num_covered += is_inside.any(1).count_nonzero()
        num_recalled += (distances < fake_radii).any(1).count_nonzero()
    return {
        "precision": float(is_precise.double().mean()),
        "recall": int(num_recalled) / len(x),
        "density": int(num_balls) / (k * len(y)),
        "coverage": int(num_covered) / len(x),
    }


@sample_score(METRICS["class_coverage"], METRICS["class_kl"], needs_classes=True)
def class_scores(real: FeatureBatch, fake: FeatureBatch) -> dict[str, float]:
    """Return the share of the real images' classes that the fakes reach, and the KL divergence.

    The class of an image is its largest logit. The divergence is that of the two histograms. Only a
    class of a fake that no real image has, whose term would be infinite, counts as if one more real
    image had been of that class: the result is finite, never negative, and grows with the number of
    such fakes. Finite samples alone make it positive: with K balanced classes by about
    (K - 1) / 2 (1 / N + 1 / M).

    Source: Metz et al. 2017, arXiv:1611.02163, section 3.3.1; Lin et al. 2018, arXiv:1712.04086.
    """
    assert real.logits is not None and fake.logits is not None
    real_logits, fake_logits = check_pair(real.logits, fake.logits, "logits")
    num_classes = real_logits.shape[1]
    num_real = real_logits.argmax(1).bincount(minlength=num_classes)
    num_fake = fake_logits.argmax(1).bincount(minlength=num_classes)
    num_covered = int(((num_real > 0) & (num_fake > 0)).sum())
    q = torch.where((num_real == 0) & (num_fake > 0), 1, num_real).double()
    p = num_fake.double() / num_fake.sum()
    kl = torch.special.xlogy(p, p).sum() - torch.special.xlogy(p, q / q.sum()).sum()
    coverage = num_covered / int((num_real > 0).sum())
    return {"class_coverage": coverage, "class_kl": max(float(kl), 0.0)}


@sample_score(METRICS["inception_score"], needs_classes=True)
def inception_score(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return exp(E_x KL(p(y | x) || p(y))) of the fakes, from 1 to the number of classes.

    It compares with published scores only if the network is Inception-v3 and the number of images
    the same.

    Source: Salimans et al. 2016, arXiv:1606.03498, section 4.
    """
    assert fake.logits is not None
    log_p = check_finite(fake.logits, "fake logits").log_softmax(1)
    log_marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp())


def check_num_images(num_images: int, num_features: int, key: str) -> None:
    """Check that there are enough images for the covariance in the Frechet distance.

    Args:
        num_images: Images on each side.
        num_features: D of the feature network.
        key: Name under which the user sets the number of images.

    Raises:
        ValueError: There are not more images than features.
    """
    expected = (
        f"{num_features + 1} or more, better {10 * num_features}: the Frechet distance estimates "
        f"the covariance of {num_features} features, which is singular with fewer images and of "
        "little use with few more"
    )
    require(num_images > num_features, key, expected, num_images)
