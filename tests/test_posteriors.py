import pytest
import torch

from vaegan.posteriors import DiagonalNormal


def test_diagonal_normal_reads_mean_and_scale():
    features = torch.tensor([[1.0, -2.0, 0.0, 30.0]])
    distribution = DiagonalNormal.Config(min_scale=0.5).build(2)(features)
    assert distribution.mean.tolist() == [[1.0, -2.0]]
    torch.testing.assert_close(distribution.stddev, torch.tensor([[torch.tensor(2.0).log().item() + 0.5, 30.5]]))


def test_scale_never_vanishes():
    distribution = DiagonalNormal.Config().build(1)(torch.tensor([[0.0, -1e6]]))
    assert distribution.stddev.item() == pytest.approx(1e-4)


def test_min_scale_must_be_positive():
    with pytest.raises(ValueError, match="min_scale must be positive"):
        DiagonalNormal.Config(min_scale=0.0)
