"""Scores of generated (fake) images, as functions of features from a fixed network.

    Frechet distance  |mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2))   lower is better, >= 0
    combined distance (Frechet distance x sliced Wasserstein distance)^1/2  lower is better, >= 0
    kernel distance   MMD^2 with the kernel (x.y / D + 1)^3, unbiased       lower is better
    precision         fraction of fake images inside a real ball            fidelity, higher
    recall            fraction of real images inside a fake ball            diversity, higher
    density           mean number of real balls around a fake image, / k    fidelity, higher
    coverage          fraction of real balls that contain a fake image      diversity, higher

Scores of pixels are in sliced_wasserstein.py, local_contrast.py, border.py and
pattern_repetition.py.

mu and S are mean and covariance of the features, D is their number. The ball of an image is
centered at its features; its radius is the distance to the k-th nearest neighbor in the same set.
Points on the surface are outside.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from vaegan.config import require
from vaegan.metrics import (  # noqa: F401 (register their scores)
    border,
    local_contrast,
    pattern_repetition,
)
from vaegan.metrics.metric_table import METRICS
from vaegan.metrics.sample_scores import (
    SAMPLE_SCORES,
    FeatureBatch,
    check_finite,
    check_pair,
    iterate_distances,
    sample_score,
)
from vaegan.metrics.sliced_wasserstein import sliced_wasserstein

NUM_NEIGHBORS = 5  # k of the k-nearest-neighbor balls
KERNEL_SUBSET_SIZE = 1000  # images per subset of the kernel distance
NUM_KERNEL_SUBSETS = 20


def compute_scores(real: FeatureBatch, fake: FeatureBatch) -> dict[str, float]:
    """Compute all registered scores by metric name, in the order of METRICS.

    Scores that need classes, pixels or colors are skipped if the batches have none, and the Frechet
    and the combined distance are skipped unless there are more images than features.

    Args:
        real: N real images.
        fake: M generated images.

    Raises:
        NonFiniteError: A feature or logit is nan or infinite.
        ValueError: The two batches differ in width or device, or have too few images.
    """
    has_classes = real.logits is not None
    expected = "given for both real and fake images or for neither"
    require(has_classes == (fake.logits is not None), "logits", expected, "one of the two")
    scores: dict[str, float] = {}
    for name in METRICS:
        score = SAMPLE_SCORES.get(name)
        if score is None or not score.is_defined(real, fake):
            continue
        result = score.function(real, fake)
        scores |= result if isinstance(result, dict) else {name: result}
    return scores


class PassThrough(nn.Module):
    """Identity in place of the feature network of a torchmetrics metric."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


@sample_score(METRICS["frechet_distance"], needs_covariance=True)
def frechet_distance(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return the squared Frechet distance between normals fitted to the features, >= 0.

        |mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2))

    The estimate is biased upward and decreases with the number of images.
    Unit: squared feature units. Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    return fake.cached(compute_frechet_distance, real)


def compute_frechet_distance(fake: FeatureBatch, real: FeatureBatch) -> float:
    """Return `frechet_distance(real, fake)`, which two scores use."""
    x, y = check_pair(real.features, fake.features)
    real_covariance, fake_covariance = x.T.cov(), y.T.cov()
    # S_r S_f = A A^T S_f has the nonzero eigenvalues of A^T S_f A, which is symmetric.
    factor = covariance_factor(real_covariance)
    eigenvalues = torch.linalg.eigvalsh(factor.T @ fake_covariance @ factor)
    root_trace = eigenvalues.clamp(min=0).sqrt().sum()
    distance = (x.mean(0) - y.mean(0)).square().sum()
    distance += real_covariance.trace() + fake_covariance.trace() - 2 * root_trace
    # Round-off makes the distance between equal sets slightly negative.
    return max(float(distance), 0.0)


def covariance_factor(covariance: Tensor) -> Tensor:
    """Return A with A A^T = S of a covariance S (D, D): (D, D), or (D, rank) if S is singular."""
    factor, error = torch.linalg.cholesky_ex(covariance)
    if not error:
        return factor
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    smallest = eigenvalues[-1] * len(eigenvalues) * torch.finfo(covariance.dtype).eps
    is_positive = eigenvalues > smallest  # the others are zero up to round-off
    return vectors[:, is_positive] * eigenvalues[is_positive].sqrt()


@sample_score(METRICS["combined_distance"], needs_images=True, needs_covariance=True)
def combined_distance(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return the geometric mean of the Frechet and the sliced Wasserstein distance, >= 0.

    It selects checkpoints in small splits. There, the minimum of a distance of features alone is
    often at a blurred state. The sliced Wasserstein distance of pixels measures blur, but not the
    composition of an image.
    """
    return math.sqrt(frechet_distance(real, fake) * sliced_wasserstein(real, fake))


@sample_score(METRICS["kernel_distance"])
def kernel_distance(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return the unbiased squared maximum mean discrepancy, averaged over 20 fixed random subsets.

    The kernel is (x.y / D + 1)^3. The estimate is unbiased for any number of images and can be
    negative. Subsets have min(1000, N, M) images.

    Source: Binkowski et al. 2018, arXiv:1801.01401 (KID).
    """
    x, y = check_pair(real.features, fake.features)
    with warnings.catch_warnings():
        message = "Metric `Kernel Inception Distance` will save all extracted features"
        warnings.filterwarnings("ignore", message=message)
        metric = KernelInceptionDistance(
            feature=PassThrough(x.shape[1]),
            subsets=NUM_KERNEL_SUBSETS,
            subset_size=min(KERNEL_SUBSET_SIZE, len(x), len(y)),
            sync_on_compute=False,
        )
    metric.update(x, real=True)
    metric.update(y, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torchmetrics samples subsets from it
        mean, _ = metric.compute()
    return float(mean)


def neighbor_distances(batch: FeatureBatch, k: int = NUM_NEIGHBORS) -> Tensor:
    """Return the Euclidean distance of each feature vector to its k-th nearest neighbor, (N,).

    Raises:
        NonFiniteError: A feature is nan or infinite.
        ValueError: k < 1, or N <= k.
    """
    features = check_finite(batch.features, "features")
    num = len(features)
    require(k >= 1, "k", "1 or more", k)
    expected = f"more than k = {k}, the number of nearest neighbors"
    require(num > k, "number of images", expected, num)
    nearest = [
        distances.topk(k + 1, largest=False, sorted=False).values.amax(1)
        for _, distances in iterate_distances(features, features)
    ]
    return torch.cat(nearest)


@sample_score(*(METRICS[name] for name in ("precision", "recall", "density", "coverage")))
def manifold_scores(
    real: FeatureBatch, fake: FeatureBatch, k: int | None = None
) -> dict[str, float]:
    """Return precision, recall, density and coverage from k-nearest-neighbor balls.

    The default k is 5, or less if a batch has only 5 images or fewer. All pairs are compared, but
    only `CHUNK_ROWS` rows of the distance matrix are in memory at a time.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 1-2 (precision, recall); Naeem et al.
        2020, arXiv:2002.09797 (density, coverage).
    """
    x, y = check_pair(real.features, fake.features)
    k = min(NUM_NEIGHBORS, len(x) - 1, len(y) - 1) if k is None else k
    real_radii = real.cached(neighbor_distances, k)
    fake_radii = fake.cached(neighbor_distances, k)
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
    """Return the fraction of real classes that fake images reach, and KL(p_fake || p_real) in nats.

    The class of an image is the argmax of its logits; p_fake and p_real are class histograms. A
    class with fake but no real images would make the KL infinite, so one real image is added to it:
    the KL is then finite, >= 0, and grows with the number of such fake images. Finite samples alone
    give a KL of about (1 / N + 1 / M) (K - 1) / 2 for K balanced classes.

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
    """Return exp(E_x KL(p(y|x) || p(y))) of the fake images, from 1 to the number of classes.

    It is comparable with published scores only with InceptionV3 and the same number of images.

    Source: Salimans et al. 2016, arXiv:1606.03498, section 4.
    """
    assert fake.logits is not None
    log_p = check_finite(fake.logits, "fake logits").log_softmax(1)
    log_marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp())
