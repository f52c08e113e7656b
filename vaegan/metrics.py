"""How far generated images are from real ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from vaegan.models import VAE


def encoder_features(vae: VAE, images: Tensor) -> Tensor:
    """The VAE's encoder as a feature network: images in [0, 1], (B, C, H, W), to its output, (B, num_features).

    Images go in as they are, binarized for no likelihood: whether a stroke is crisp or blurred is what a GAN changes.
    """
    with torch.no_grad():
        features: Tensor = vae.encoder(images)
        return features


class PassThrough(nn.Module):
    """Gives torchmetrics features that are computed outside, so that no network enters the metric's state."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(num_features: int) -> FrechetInceptionDistance:
    """Frechet distance of two Gaussians: `update(features (B, num_features), real=...)`, then `compute()`.

    Features of real images survive `reset()`. Source: Heusel et al. 2017, arXiv:1706.08500.
    """
    return FrechetInceptionDistance(feature=PassThrough(num_features), reset_real_features=False)
