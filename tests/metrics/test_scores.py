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

from vaegan.metrics import sample_scores
from vaegan.metrics.metric_table import METRICS, Metric, sweep_metrics
from vaegan.metrics.sample_scores import SAMPLE_SCORES, FeatureBatch, sample_score
from vaegan.metrics.scores import (
    check_num_images,
    class_scores,
    compute_scores,
    frechet_distance,
    inception_score,
    kernel_distance,
    manifold_scores,
)

NAMES = ["frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"]
CLASS_NAMES = ["class_coverage", "class_kl", "inception_score"]


def features(num_real=400, num_fake=300, width=12, mean=0.0):
    """Correlated real features with two dead ones, and fakes that are shifted and too narrow."""
    mix = torch.randn(width, width)
    real, fake = torch.randn(num_real, width) @ mix, 0.8 * torch.randn(num_fake, width) @ mix + 0.3
    real[:, :2] = fake[:, :2] = 0
    return real + mean, fake + mean


def on_features(score):
    """A score as a function of two matrices of features."""
    return lambda real, fake, *args: score(FeatureBatch(real), FeatureBatch(fake), *args)


def on_logits(score):
    """A score as a function of two matrices of logits."""
    return lambda real, fake: score(FeatureBatch(real, real), FeatureBatch(fake, fake))


frechet, kernel = on_features(frechet_distance), on_features(kernel_distance)
manifold, classes = on_features(manifold_scores), on_logits(class_scores)


def inception(logits):
    return on_logits(inception_score)(logits, logits)


def logits(num_real=300, num_fake=200, num_classes=7):
    return 3 * torch.randn(num_real, num_classes), 3 * torch.randn(num_fake, num_classes)


def both(num_real=400, num_fake=300):
    (real, fake), (real_logits, fake_logits) = (
        features(num_real, num_fake),
        logits(num_real, num_fake),
    )
    return FeatureBatch(real, real_logits), FeatureBatch(fake, fake_logits)


def prdc(real, fake, k):
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # joblib's threads and scikit-learn's renamings are prdc's affair
        return compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)


@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_frechet_distance_against_scipy_and_torch_fidelity(mean):
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


def test_frechet_distance_of_known_gaussians():
    normal = torch.randn(200_000, 2)
    fake = normal.flip(0) * torch.tensor([2.0, 1.0]) + torch.tensor([3.0, 0.0])
    assert frechet(normal, fake) == pytest.approx(9 + (2 - 1) ** 2, rel=1e-2)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_frechet_distance_does_not_see_a_common_offset(offset):
    real, fake = (x.double() for x in features())
    assert frechet(real + offset, fake + offset) == pytest.approx(frechet(real, fake), rel=1e-6)


def test_equal_sets_are_at_distance_zero_and_no_less():
    real, _ = features()
    assert 0 <= frechet(real, real.flip(0)) < 1e-5


@pytest.mark.parametrize("mean", [0.0, 5.0])
def test_kernel_distance_of_the_whole_sets_against_torch_fidelity(mean):
    real, fake = features(300, 300, mean=mean)
    options = {"kid_subsets": 1, "kid_subset_size": 300, "verbose": False, "rng_seed": 0}
    expected = kid_features_to_metric(real.double(), fake.double(), **options)[
        "kernel_inception_distance_mean"
    ]
    assert kernel(real, fake) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_over_subsets_is_near_the_one_of_all_pairs():
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
def test_manifold_scores_against_prdc(k, num_fake, mean):
    real, fake = features(600, num_fake, mean=mean)
    got = manifold(real, fake, k)
    assert got == pytest.approx(prdc(real, fake, k), rel=1e-12)
    assert 0 < got["recall"] < 1 and 0 < got["coverage"] < 1


def test_manifold_scores_of_a_collapsed_generator_against_prdc():
    real, _ = features()
    fake = (real.mean(0) + 1e-3 * torch.randn(300, 12)).float()
    got = manifold(real, fake)
    assert got == pytest.approx(prdc(real, fake, 5), rel=1e-12)
    assert got["recall"] < 0.05 and got["coverage"] < 0.5


def test_near_duplicates_far_from_the_origin_keep_their_distances():
    steps = torch.arange(300).double()[:, None] ** 1.5
    real = 1000 + torch.tensor([[1e-4, 0.0]]).double() * steps
    expected = (real[:, None] - real[None]).norm(dim=2).sort(1).values[:, 5]
    assert torch.allclose(FeatureBatch(real).radii().double(), expected, rtol=1e-4)


def test_copies_of_the_real_images_score_as_the_strict_comparison_demands():
    real, _ = features(700)
    got = manifold(real, real[torch.randperm(700)])
    # each ball holds its own center and k - 1 neighbors: the k-th lies on its surface, outside
    assert got == {"precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}


def test_a_single_image_made_again_and_again_recalls_nothing():
    real, fake = features()
    got = manifold(real, fake[:1].expand(300, -1))
    assert got["recall"] == 0 and got["precision"] in (0.0, 1.0)


def test_chunks_change_nothing(monkeypatch):
    real, fake = features()
    whole = manifold(real, fake)
    for chunk in (1, 7, 300, 1000):
        monkeypatch.setattr(sample_scores, "CHUNK", chunk)
        assert manifold(real, fake) == whole


def test_radii_are_computed_once(monkeypatch):
    real, fake = both()
    first = compute_scores(real, fake)
    monkeypatch.setattr(sample_scores, "iterate_distances", None)  # would fail
    assert real.radii().shape == (400,)
    assert torch.equal(real.radii(), real.radii(5))
    monkeypatch.undo()
    assert compute_scores(real, fake) == first
    assert manifold_scores(real, fake, 3) == manifold(real.features, fake.features, 3)


def test_inception_score_against_torch_fidelity():
    _, fake = logits()
    expected = isc_features_to_metric(fake, splits=1)["inception_score_mean"]
    assert inception(fake) == pytest.approx(expected, rel=1e-9)
    assert inception(fake.double().log_softmax(1)) == pytest.approx(expected, rel=1e-9)


def test_inception_score_at_its_limits():
    assert inception(torch.randn(1, 7).expand(50, -1)) == pytest.approx(1, rel=1e-9)
    certain = 2000.0 * one_hot(torch.arange(70) % 7, 7)  # probabilities that underflow to 0
    assert inception(certain) == pytest.approx(7, rel=1e-9)


def from_counts(counts):
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return one_hot(classes, len(counts)).float()


def test_class_scores_by_hand():
    got = classes(from_counts([4, 4, 2, 0]), from_counts([1, 3, 0, 0]))
    assert got["class_coverage"] == pytest.approx(2 / 3)
    expected = 0.25 * math.log(0.25 / 0.4) + 0.75 * math.log(0.75 / 0.4)
    assert got["class_kl"] == pytest.approx(expected, rel=1e-9)


def test_class_kl_against_scipy():
    real, fake = logits()
    p, q = (x.argmax(1).bincount(minlength=7).numpy() for x in (fake, real))
    assert classes(real, fake)["class_kl"] == pytest.approx(entropy(p, q), rel=1e-9)
    assert classes(real, real)["class_kl"] == 0


def test_class_kl_of_stacked_mnist_with_one_mode_is_the_logarithm_of_the_number_of_modes():
    got = classes(from_counts([2] * 1000), from_counts([50] + [0] * 999))
    assert got["class_coverage"] == 1e-3
    assert got["class_kl"] == pytest.approx(math.log(1000), rel=1e-9)


def test_fakes_of_a_class_that_no_real_image_has_cost_a_finite_amount():
    real = from_counts([10, 10, 0, 0])
    some = classes(real, from_counts([5, 5, 1, 0]))["class_kl"]
    more = classes(real, from_counts([5, 5, 9, 0]))["class_kl"]
    assert some == pytest.approx(entropy([5, 5, 1], [10, 10, 1]), rel=1e-9)
    assert 0 < some < more < math.inf
    elsewhere = classes(real, from_counts([0, 0, 3, 0]))
    assert elsewhere["class_coverage"] == 0
    assert elsewhere["class_kl"] == pytest.approx(math.log(21), rel=1e-9)


def test_scores_have_names_in_order_and_are_those_of_the_functions():
    real, fake = both()
    got = compute_scores(real, fake)
    assert list(got) == NAMES + CLASS_NAMES and all(type(value) is float for value in got.values())
    assert got["frechet_distance"] == frechet_distance(real, fake)
    assert got["kernel_distance"] == kernel_distance(real, fake)
    assert got["recall"] == manifold_scores(real, fake)["recall"]
    assert got["class_coverage"] == class_scores(real, fake)["class_coverage"]
    assert got["inception_score"] == inception_score(real, fake)
    assert list(compute_scores(FeatureBatch(real.features), FeatureBatch(fake.features))) == NAMES


def test_scores_depend_on_the_features_alone_and_leave_the_generators():
    real, fake = both(1200, 1100)
    again = FeatureBatch(real.features, real.logits), FeatureBatch(fake.features, fake.logits)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = compute_scores(real, fake)
    assert (
        torch.equal(torch.get_rng_state(), before)
        and (np.random.get_state()[1] == numpy_before).all()
    )
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert compute_scores(*again) == first
    assert compute_scores(real, FeatureBatch(fake.features.requires_grad_(), fake.logits)) == first


def test_half_precision_features_are_taken():
    real, fake = features()
    assert manifold(real.half(), fake.half()) == manifold(real.half().float(), fake.half().float())


def test_one_process_may_compute_alone(monkeypatch):
    def gather(*args, **kwargs):
        raise AssertionError("waits for the other processes")

    monkeypatch.setattr(torchmetrics.metric, "jit_distributed_available", lambda: True)
    monkeypatch.setattr(torchmetrics.metric, "gather_all_tensors", gather)
    assert len(compute_scores(*both())) == 9


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "score", [frechet, kernel, manifold, classes], ids=["frechet", "kernel", "manifold", "classes"]
)
def test_non_finite_features_are_refused(score, value):
    real, fake = features()
    fake[3, 4] = value
    message = r"fake \w+ must be finite: the generator .* got nan or inf in 1 of 300 images"
    with pytest.raises(ValueError, match=message):
        score(real, fake)
    with pytest.raises(ValueError, match=r"real \w+ must be finite"):
        score(fake, real)


def test_non_finite_input_of_one_set_is_refused():
    broken = torch.full((9, 4), math.nan)
    with pytest.raises(ValueError, match="fake logits must be finite"):
        inception(broken)
    with pytest.raises(ValueError, match="features must be finite"):
        FeatureBatch(broken).radii()


def test_what_does_not_fit_together_is_refused():
    real, fake = both()
    with pytest.raises(
        ValueError, match=r"fake features must be as wide as the real ones, 12.*got \(11, 'cpu'\)"
    ):
        frechet(real.features, fake.features[:, :11])
    with pytest.raises(ValueError, match="fake logits must be as wide as the real ones, 7"):
        classes(real.logits, fake.logits[:, :6])
    with pytest.raises(ValueError, match="logits must be given for real and fake or for neither"):
        compute_scores(real, FeatureBatch(fake.features))
    with pytest.raises(
        ValueError, match=r"real features must be of shape \(N, D\), N at least 2; got \(400,\)"
    ):
        frechet(real.features[:, 0], fake.features)


def test_too_few_images_are_refused():
    real, fake = features()
    with pytest.raises(
        ValueError, match="number of images must be more than the k = 5 nearest neighbors; got 5"
    ):
        manifold(real, fake[:5])
    with pytest.raises(ValueError, match="k must be 1 or more; got 0"):
        FeatureBatch(real).radii(0)
    with pytest.raises(
        ValueError, match=r"fake features must be of shape \(N, D\), N at least 2; got \(1, 12\)"
    ):
        kernel(real, fake[:1])


def test_fewer_images_than_features_are_refused_under_the_users_name():
    check_num_images(65, 64, "num_fakes")
    with pytest.raises(
        ValueError, match="num_fakes must be 65 or more, better 640: .* singular .*; got 64"
    ):
        check_num_images(64, 64, "num_fakes")


@pytest.fixture
def registries():
    before = dict(METRICS), dict(SAMPLE_SCORES)
    yield
    for registry, entries in zip((METRICS, SAMPLE_SCORES), before, strict=True):
        registry.clear()
        registry.update(entries)


def test_a_score_is_one_function(registries):
    metric = Metric("norm_gap", "Difference of mean norms.", "min", is_sweep_metric=True)

    @sample_score(metric)
    def norm_gap(real, fake):
        return abs(float(real.features.norm(dim=1).mean() - fake.features.norm(dim=1).mean()))

    @sample_score(Metric("low", ""), Metric("high", ""), needs_classes=True)
    def extremes(real, fake):
        return {"low": float(fake.logits.min()), "high": float(fake.logits.max())}

    real, fake = both()
    got = compute_scores(real, fake)
    assert list(got) == [*NAMES, *CLASS_NAMES, "norm_gap", "low", "high"]
    assert got["norm_gap"] == norm_gap(real, fake)
    assert METRICS["norm_gap"] is metric and "norm_gap" in sweep_metrics("gan")
    without_classes = FeatureBatch(real.features), FeatureBatch(fake.features)
    assert list(compute_scores(*without_classes)) == [*NAMES, "norm_gap"]


def test_two_metrics_of_one_name_are_refused(registries):
    with pytest.raises(ValueError, match="two metrics are called recall"):
        sample_score(Metric("recall", "Something else."))(lambda real, fake: 0.0)
