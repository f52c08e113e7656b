"""How far generated images are from real ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from vaegan.models import VAE


class PosteriorMean(nn.Module):
    """The VAE's encoder as a feature network: images in [0, 1], (B, C, H, W), to posterior means (B, latent_dim).

    Real and generated images alike first go onto the likelihood's support (binarized images, for a Bernoulli VAE), since
    that is what the encoder knows; grey generated images would otherwise differ from binary ones by that alone.
    """

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            means: Tensor = self.vae.encode(self.vae.likelihood.target(images)).mean
            return means


class PassThrough(nn.Module):
    """Gives torchmetrics features that are computed outside, so that no network enters the metric's state."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(num_features: int) -> FrechetInceptionDistance:
    """Metric with `update(features (B, num_features), real=...)` and `compute()`: the Frechet distance of two Gaussians.

    Features of real images survive `reset()`. Source: Heusel et al. 2017, arXiv:1706.08500.
    """
    return FrechetInceptionDistance(feature=PassThrough(num_features), reset_real_features=False)
