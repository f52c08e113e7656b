import math
import warnings

import numpy as np
import pytest
import torch
import torchmetrics.metric
from prdc import compute_prdc
from scipy.linalg import sqrtm
from scipy.stats import entropy
from torch.nn.functional import one_hot
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from vaegan.metrics import sample_scores, scores
from vaegan.metrics.metric_table import METRICS, Metric, sweep_metrics
from vaegan.metrics.sample_scores import SAMPLE_SCORES, FeatureBatch, sample_score
from vaegan.metrics.scores import (
    class_scores,
    combined_distance,
    compute_scores,
    frechet_distance,
    inception_score,
    kernel_distance,
    manifold_scores,
    neighbor_distances,
)
from vaegan.metrics.sliced_wasserstein import sliced_wasserstein

NAMES = ["frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"]
CLASS_NAMES = ["class_coverage", "class_kl", "inception_score"]


def features(num_real=400, num_fake=300, width=12, mean=0.0):
    """Return correlated features with two constant columns; fakes are shifted and narrower."""
    mix = torch.randn(width, width)
    real = torch.randn(num_real, width) @ mix
    fake = 0.8 * torch.randn(num_fake, width) @ mix + 0.3
    real[:, :2] = fake[:, :2] = 0
    return real + mean, fake + mean


def on_features(score):
    """Return a score as a function of two feature matrices."""
    return lambda real, fake, *args: score(FeatureBatch(real), FeatureBatch(fake), *args)


def on_logits(score):
    """Return a score as a function of two logit matrices."""
    return lambda real, fake: score(FeatureBatch(real, real), FeatureBatch(fake, fake))


frechet, kernel = on_features(frechet_distance), on_features(kernel_distance)
manifold, classes = on_features(manifold_scores), on_logits(class_scores)


def inception(logits):
    return on_logits(inception_score)(logits, logits)


def logits(num_real=300, num_fake=200, num_classes=7):
    return 3 * torch.randn(num_real, num_classes), 3 * torch.randn(num_fake, num_classes)


def feature_batches(num_real=400, num_fake=300):
    real, fake = features(num_real, num_fake)
    real_logits, fake_logits = logits(num_real, num_fake)
    return FeatureBatch(real, real_logits), FeatureBatch(fake, fake_logits)


def prdc(real, fake, k):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib and scikit-learn warn about how prdc calls them
        return compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)


@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_frechet_distance_matches_scipy_and_torch_fidelity(mean):
    real, fake = (x.double() for x in features(mean=mean))
    root = sqrtm((torch.cov(real.T) @ torch.cov(fake.T) + 1e-12 * torch.eye(12)).numpy()).real
    means = (real.mean(0) - fake.mean(0)).square().sum()
    expected = (
        means + torch.cov(real.T).trace() + torch.cov(fake.T).trace()
    ).item() - 2 * root.trace()
    got = frechet(real.float(), fake.float())
    assert got == pytest.approx(expected, rel=1e-4)
    statistics = [fid_features_to_statistics(x) for x in (real, fake)]
    fidelity = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert got == pytest.approx(fidelity, rel=1e-5)


@pytest.mark.parametrize("rank", [5, 12])
def test_frechet_distance_of_singular_covariances_matches_scipy(rank):
    """An isometry into a larger space makes the covariances singular and keeps the distance."""
    real, fake = torch.randn(200, rank).double(), 0.5 * torch.randn(300, rank).double()
    mix = torch.randn(rank, rank).double()
    real = real @ mix
    root = sqrtm((real.T.cov() @ fake.T.cov()).numpy()).real.trace()
    expected = (real.mean(0) - fake.mean(0)).square().sum() + real.T.cov().trace()
    expected = (expected + fake.T.cov().trace()).item() - 2 * root
    isometry = torch.linalg.qr(torch.randn(40, rank).double())[0].T
    assert frechet(real, fake) == pytest.approx(expected, rel=1e-10)
    assert frechet(real @ isometry, fake @ isometry) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_constant_features_is_that_of_the_means():
    real = torch.zeros(10, 3)
    assert frechet(real, real + 2) == 12


def test_frechet_distance_of_known_gaussians():
    normal = torch.randn(200_000, 2)
    fake = normal.flip(0) * torch.tensor([2.0, 1.0]) + torch.tensor([3.0, 0.0])
    assert frechet(normal, fake) == pytest.approx(9 + (2 - 1) ** 2, rel=1e-2)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_frechet_distance_is_invariant_to_a_common_offset(offset):
    real, fake = (x.double() for x in features())
    assert frechet(real + offset, fake + offset) == pytest.approx(frechet(real, fake), rel=1e-6)


def test_frechet_distance_of_equal_sets_is_zero():
    real, _ = features()
    assert 0 <= frechet(real, real.flip(0)) < 1e-5


@pytest.mark.parametrize("mean", [0.0, 5.0])
def test_kernel_distance_of_full_sets_matches_torch_fidelity(mean):
    real, fake = features(300, 300, mean=mean)
    options = {"kid_subsets": 1, "kid_subset_size": 300, "verbose": False, "rng_seed": 0}
    expected = kid_features_to_metric(real.double(), fake.double(), **options)[
        "kernel_inception_distance_mean"
    ]
    assert kernel(real, fake) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_over_subsets_is_close_to_all_pairs():
    real, fake = (x.double().numpy() for x in features(1500, 1600))

    def mean_kernel(a, b, same):
        kernel = (a @ b.T / a.shape[1] + 1) ** 3
        return (kernel.sum() - np.trace(kernel)) / len(a) / (len(a) - 1) if same else kernel.mean()

    expected = (
        mean_kernel(real, real, True)
        + mean_kernel(fake, fake, True)
        - 2 * mean_kernel(real, fake, False)
    )
    assert kernel(*map(torch.tensor, (real, fake))) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("num_fake", [150, 700])
@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_manifold_scores_match_prdc(k, num_fake, mean):
    real, fake = features(600, num_fake, mean=mean)
    got = manifold(real, fake, k)
    assert got == pytest.approx(prdc(real, fake, k), rel=1e-12)
    assert 0 < got["recall"] < 1 and 0 < got["coverage"] < 1


def test_manifold_scores_of_a_collapsed_generator_match_prdc():
    real, _ = features()
    fake = (real.mean(0) + 1e-3 * torch.randn(300, 12)).float()
    got = manifold(real, fake)
    assert got == pytest.approx(prdc(real, fake, 5), rel=1e-12)
    assert got["recall"] < 0.05 and got["coverage"] < 0.5


def test_radii_of_near_duplicates_far_from_the_origin_are_accurate():
    steps = torch.arange(300).double()[:, None] ** 1.5
    real = 1000 + torch.tensor([[1e-4, 0.0]]).double() * steps
    expected = (real[:, None] - real[None]).norm(dim=2).sort(1).values[:, 5]
    assert torch.allclose(neighbor_distances(FeatureBatch(real)).double(), expected, rtol=1e-4)


def test_copies_of_the_real_images_have_perfect_manifold_scores():
    real, _ = features(700)
    got = manifold(real, real[torch.randperm(700)])
    # A ball contains its center and k - 1 neighbors; the k-th lies on the surface, thus outside.
    assert got == {"precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}


def test_repeated_image_has_zero_recall():
    real, fake = features()
    got = manifold(real, fake[:1].expand(300, -1))
    assert got["recall"] == 0 and got["precision"] in (0.0, 1.0)


def test_chunk_size_does_not_change_the_scores(monkeypatch):
    real, fake = features()
    expected = manifold(real, fake)
    for chunk_rows in (1, 7, 300, 1000):
        monkeypatch.setattr(sample_scores, "CHUNK_ROWS", chunk_rows)
        assert manifold(real, fake) == expected


def test_neighbor_distances_are_computed_once(monkeypatch):
    real, fake = feature_batches()
    first = compute_scores(real, fake)
    monkeypatch.setattr(scores, "check_finite", None)  # a second computation would fail
    assert real.cached(neighbor_distances, 5).shape == (400,)
    with pytest.raises(TypeError):
        real.cached(neighbor_distances, 4)
    monkeypatch.undo()
    assert compute_scores(real, fake) == first
    assert manifold_scores(real, fake, 3) == manifold(real.features, fake.features, 3)


def test_inception_score_matches_torch_fidelity():
    _, fake = logits()
    expected = isc_features_to_metric(fake, splits=1)["inception_score_mean"]
    assert inception(fake) == pytest.approx(expected, rel=1e-9)
    assert inception(fake.double().log_softmax(1)) == pytest.approx(expected, rel=1e-9)


def test_inception_score_reaches_its_limits():
    assert inception(torch.randn(1, 7).expand(50, -1)) == pytest.approx(1, rel=1e-9)
    certain = 2000.0 * one_hot(torch.arange(70) % 7, 7)  # other probabilities underflow to 0
    assert inception(certain) == pytest.approx(7, rel=1e-9)


def one_hot_logits(counts):
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return one_hot(classes, len(counts)).float()


def test_class_scores_match_the_formula():
    got = classes(one_hot_logits([4, 4, 2, 0]), one_hot_logits([1, 3, 0, 0]))
    assert got["class_coverage"] == pytest.approx(2 / 3)
    expected = 0.25 * math.log(0.25 / 0.4) + 0.75 * math.log(0.75 / 0.4)
    assert got["class_kl"] == pytest.approx(expected, rel=1e-9)


def test_class_kl_matches_scipy():
    real, fake = logits()
    p, q = (x.argmax(1).bincount(minlength=7).numpy() for x in (fake, real))
    assert classes(real, fake)["class_kl"] == pytest.approx(entropy(p, q), rel=1e-9)
    assert classes(real, real)["class_kl"] == 0


def test_class_kl_of_a_single_mode_is_the_log_of_the_number_of_modes():
    got = classes(one_hot_logits([2] * 1000), one_hot_logits([50] + [0] * 999))
    assert got["class_coverage"] == 1e-3
    assert got["class_kl"] == pytest.approx(math.log(1000), rel=1e-9)


def test_class_kl_is_finite_for_classes_without_real_images():
    real = one_hot_logits([10, 10, 0, 0])
    one_outside = classes(real, one_hot_logits([5, 5, 1, 0]))["class_kl"]
    nine_outside = classes(real, one_hot_logits([5, 5, 9, 0]))["class_kl"]
    assert one_outside == pytest.approx(entropy([5, 5, 1], [10, 10, 1]), rel=1e-9)
    assert 0 < one_outside < nine_outside < math.inf
    all_outside = classes(real, one_hot_logits([0, 0, 3, 0]))
    assert all_outside["class_coverage"] == 0
    assert all_outside["class_kl"] == pytest.approx(math.log(21), rel=1e-9)


def test_combined_distance_is_the_geometric_mean_of_two_distances():
    real, fake = feature_batches()
    for batch in (real, fake):
        batch.images = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8)
    expected = frechet_distance(real, fake) * sliced_wasserstein(real, fake)
    assert combined_distance(real, fake) ** 2 == pytest.approx(expected)
    got = compute_scores(real, fake)
    assert list(got)[:3] == ["frechet_distance", "combined_distance", "kernel_distance"]
    assert combined_distance(real, real) == 0
    few = [FeatureBatch(x.features[:12], images=x.images) for x in (real, fake)]
    assert "combined_distance" not in compute_scores(*few)


def test_compute_scores_returns_all_scores_in_order():
    real, fake = feature_batches()
    got = compute_scores(real, fake)
    assert list(got) == NAMES + CLASS_NAMES and all(type(value) is float for value in got.values())
    assert got["frechet_distance"] == frechet_distance(real, fake)
    assert got["kernel_distance"] == kernel_distance(real, fake)
    assert got["recall"] == manifold_scores(real, fake)["recall"]
    assert got["class_coverage"] == class_scores(real, fake)["class_coverage"]
    assert got["inception_score"] == inception_score(real, fake)
    assert list(compute_scores(FeatureBatch(real.features), FeatureBatch(fake.features))) == NAMES


def test_scores_are_deterministic_and_do_not_advance_global_generators():
    real, fake = feature_batches(1200, 1100)
    copies = FeatureBatch(real.features, real.logits), FeatureBatch(fake.features, fake.logits)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = compute_scores(real, fake)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert compute_scores(*copies) == first
    assert compute_scores(real, FeatureBatch(fake.features.requires_grad_(), fake.logits)) == first


def test_half_precision_features_are_accepted():
    real, fake = features()
    assert manifold(real.half(), fake.half()) == manifold(real.half().float(), fake.half().float())


def test_scores_do_not_wait_for_other_processes(monkeypatch):
    def gather(*args, **kwargs):
        raise AssertionError("the score waits for other processes")

    monkeypatch.setattr(torchmetrics.metric, "jit_distributed_available", lambda: True)
    monkeypatch.setattr(torchmetrics.metric, "gather_all_tensors", gather)
    assert len(compute_scores(*feature_batches())) == 9


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "score", [frechet, kernel, manifold, classes], ids=["frechet", "kernel", "manifold", "classes"]
)
def test_non_finite_features_are_rejected(score, value):
    real, fake = features()
    fake[3, 4] = value
    message = r"fake \w+ must be finite; got nan or inf in 1 of 300 images, from the generator"
    with pytest.raises(ValueError, match=message):
        score(real, fake)
    with pytest.raises(ValueError, match=r"real \w+ must be finite"):
        score(fake, real)


def test_non_finite_logits_and_radii_input_are_rejected():
    broken = torch.full((9, 4), math.nan)
    with pytest.raises(ValueError, match="fake logits must be finite"):
        inception(broken)
    with pytest.raises(ValueError, match="features must be finite"):
        neighbor_distances(FeatureBatch(broken))


def test_mismatched_batches_are_rejected():
    real, fake = feature_batches()
    with pytest.raises(
        ValueError, match=r"fake features must be of width 12 and on cpu.*got \(11, 'cpu'\)"
    ):
        frechet(real.features, fake.features[:, :11])
    with pytest.raises(
        ValueError, match="fake logits must be of width 7 and on cpu, as the real logits are"
    ):
        classes(real.logits, fake.logits[:, :6])
    with pytest.raises(
        ValueError, match="logits must be given for both real and fake images or for neither"
    ):
        compute_scores(real, FeatureBatch(fake.features))
    with pytest.raises(
        ValueError, match=r"real features must be of shape \(N, D\) with N at least 2; got \(400,\)"
    ):
        frechet(real.features[:, 0], fake.features)


def test_too_few_images_are_rejected():
    real, fake = features()
    with pytest.raises(
        ValueError,
        match="number of images must be more than k = 5, the number of nearest neighbors; got 5",
    ):
        manifold(real, fake[:5], 5)
    with pytest.raises(ValueError, match="k must be 1 or more; got 0"):
        neighbor_distances(FeatureBatch(real), 0)
    with pytest.raises(
        ValueError,
        match=r"fake features must be of shape \(N, D\) with N at least 2; got \(1, 12\)",
    ):
        kernel(real, fake[:1])


def test_small_batches_use_fewer_neighbors():
    real, fake = features(4, 3)
    assert manifold(real, fake) == manifold(real, fake, 2)


@pytest.mark.parametrize("num_images, is_defined", [(12, False), (13, True)])
def test_frechet_distance_is_left_out_with_fewer_images_than_features(num_images, is_defined):
    real, fake = (FeatureBatch(part) for part in features(num_images, num_images))
    expected = NAMES if is_defined else NAMES[1:]
    assert list(compute_scores(real, fake)) == expected


@pytest.fixture
def restored_registries():
    before = dict(METRICS), dict(SAMPLE_SCORES)
    yield
    for registry, entries in zip((METRICS, SAMPLE_SCORES), before, strict=True):
        registry.clear()
        registry.update(entries)


def test_new_score_is_registered_with_its_metrics(restored_registries):
    metric = Metric("norm_gap", "Difference of mean norms.", "min", is_sweep_metric=True)

    @sample_score(metric)
    def norm_gap(real, fake):
        return abs(float(real.features.norm(dim=1).mean() - fake.features.norm(dim=1).mean()))

    @sample_score(Metric("low", ""), Metric("high", ""), needs_classes=True)
    def extremes(real, fake):
        return {"low": float(fake.logits.min()), "high": float(fake.logits.max())}

    real, fake = feature_batches()
    got = compute_scores(real, fake)
    assert list(got) == [*NAMES, *CLASS_NAMES, "norm_gap", "low", "high"]
    assert got["norm_gap"] == norm_gap(real, fake)
    assert METRICS["norm_gap"] is metric and "norm_gap" in sweep_metrics("gan")
    without_classes = FeatureBatch(real.features), FeatureBatch(fake.features)
    assert list(compute_scores(*without_classes)) == [*NAMES, "norm_gap"]


def test_duplicate_metric_name_is_rejected(restored_registries):
    with pytest.raises(ValueError, match="metric names must be unique; got recall twice"):
        sample_score(Metric("recall", "Something else."))(lambda real, fake: 0.0)
