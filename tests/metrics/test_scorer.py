"""Collecting generated images, and the choice of the metric that selects the best checkpoint."""

import logging

import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.shapes import Shapes
from vaegan.metrics.feature_extractors import VaeEncoderExtractor
from vaegan.metrics.scorer import Scorer, choose_monitor
from vaegan.vae.model import VAE

CPU = torch.device("cpu")


def make_scorer(num_val=64, num_test=64):
    """Return a scorer with 16 features."""
    config = Shapes.Config(height=16, width=16, num_train=200, num_val=num_val, num_test=num_test)
    data = ImageDataModule(config.build(), LoaderConfig(batch_size=8), seed=0)
    vae = VAE(data.source.image_shape, compose("stage=vae", *SMALL_NETS))
    extractor = VaeEncoderExtractor.Config().build(vae, None)
    return Scorer(extractor, data, ("val", "test"))


def score(scorer, split, order, batch_size):
    images = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    scorer.start(split, CPU)
    for indices in torch.as_tensor(order).split(batch_size):
        scorer.update(images[indices], indices)
    return scorer.compute()


def test_scores_depend_on_neither_order_nor_batches():
    scorer = make_scorer()
    first = score(scorer, "val", list(range(64)), 64)
    assert score(scorer, "val", list(range(63, -1, -1)), 5) == pytest.approx(first, rel=1e-5)
    expected = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scorer.fake.images, (expected * 255).round().byte())
    assert "sliced_wasserstein" in first


def test_monitor_depends_on_the_number_of_images_per_feature():
    assert choose_monitor(16, 16) == "kernel_distance"
    assert choose_monitor(17, 16) == "combined_distance"
    assert choose_monitor(159, 16) == "combined_distance"
    assert choose_monitor(160, 16) == "frechet_distance"


@pytest.mark.parametrize(
    "num_val, num_test, monitor, message",
    [
        (160, 160, "frechet_distance", ""),
        (
            64,
            160,
            "combined_distance",
            "only 64 val images and 160 test images for the 16 features of vae_encoder: "
            "combined_distance (geometric mean of frechet_distance and sliced_wasserstein) selects "
            "the best checkpoint",
        ),
        (
            16,
            9,
            "kernel_distance",
            "kernel_distance (squared MMD of features) selects the best checkpoint; "
            "frechet_distance and combined_distance are left out on val and test",
        ),
        (
            160,
            16,
            "frechet_distance",
            "frechet_distance and combined_distance are left out on test",
        ),
    ],
)
def test_small_splits_are_reported_once(num_val, num_test, monitor, message, caplog):
    scorer = make_scorer(num_val, num_test)
    with caplog.at_level(logging.INFO):
        scorer.log_small_splits()
    assert scorer.monitor == monitor and message in caplog.text
    assert len(caplog.records) == bool(message)


def test_small_splits_have_all_scores_but_the_frechet_distance():
    scorer = make_scorer(num_val=4)
    scorer.start("val", CPU)
    scorer.update(torch.rand(4, 1, 16, 16), torch.arange(4))
    scores = scorer.compute()
    assert next(iter(scores)) == "kernel_distance"
    assert {"precision", "coverage", "sliced_wasserstein"} <= scores.keys()
    assert not {"frechet_distance", "combined_distance"} & scores.keys()
    assert scorer.real_statistics("val", CPU).real_vs_real.keys() == scores.keys()


def test_a_small_test_split_lacks_the_monitor_of_the_val_split():
    scorer = make_scorer(num_val=160, num_test=16)
    scorer.start("test", CPU)
    scorer.update(torch.rand(16, 1, 16, 16), torch.arange(16))
    assert scorer.monitor == "frechet_distance" and "frechet_distance" not in scorer.compute()


def test_a_split_of_one_image_is_refused():
    with pytest.raises(ValueError, match="images in the test split must be at least 2; got 1"):
        make_scorer(num_test=1)
