"""Latents as a function of a random seed, and paths between the latents of two seeds.

A latent is a function of standard normal noise; the function depends on the latent distribution.
Temperature scales this noise, and an interpolation follows an arc between two noise vectors. Every
point of a path is therefore about as probable under the latent distribution as a random latent, for
learned distributions too. A straight line between latents would pass through improbable values.

    normal    z = m + S e
    mixture   z = m_k + S_k e, with a component k per seed; a path moves m_k and S_k linearly, which
              for diagonal S_k is the Wasserstein geodesic between the two components
    kernels   z = m_k + S e, with a kernel k per seed; a path is an arc between two latents, which
              keeps their distance from the mean of all m_k; between kernels it is improbable
    flow      z = f(e)
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)
from zuko.distributions import NormalizingFlow

from vaegan.probability.distributions import KernelDensity
from vaegan.runtime.seeding import make_generator, seeded


class LatentSampler(abc.ABC):
    """Deterministic sampler of a latent distribution.

    Args:
        distribution: Batch shape (), event shape (latent_dim,), on the CPU.
    """

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        (self.latent_dim,) = distribution.event_shape

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Return the standard normal noise of each seed, (len(seeds), latent_dim)."""
        generators = [make_generator("sample", seed, "latent") for seed in seeds]
        return torch.stack([torch.randn(self.latent_dim, generator=each) for each in generators])

    @abc.abstractmethod
    def latents(self, seeds: Sequence[int], temperature: float = 1.0) -> Tensor:
        """Return the latent of each seed, (len(seeds), latent_dim).

        Args:
            seeds: Random seeds. The latent of a seed does not depend on the other seeds.
            temperature: Factor of the noise; 1 samples from the latent distribution.
        """

    @abc.abstractmethod
    def path(self, start: int, end: int, num: int, temperature: float = 1.0) -> Tensor:
        """Return latents on the path between those of two seeds, (num, latent_dim), num >= 2."""


class GaussianSampler(LatentSampler):
    """Sampler of a normal or of a mixture of normals, with diagonal or full covariances.

    Args:
        distribution: The distribution.
        weights: Mixture weights, (K,); a normal has K = 1.
        means: (K, latent_dim).
        scales: Standard deviations, (K, latent_dim), or Cholesky factors of the covariances,
            (K, latent_dim, latent_dim).
    """

    def __init__(
        self, distribution: Distribution, weights: Tensor, means: Tensor, scales: Tensor
    ) -> None:
        super().__init__(distribution)
        self.weights = weights
        self.means = means
        self.scales = scales

    def components(self, seeds: Sequence[int]) -> Tensor:
        """Return the component of each seed, (len(seeds),)."""
        generators = [make_generator("sample", seed, "component") for seed in seeds]
        return torch.cat([self.weights.multinomial(1, generator=each) for each in generators])

    def latents(self, seeds: Sequence[int], temperature: float = 1.0) -> Tensor:
        k = self.components(seeds)
        return self.means[k] + scale_noise(self.scales[k], temperature * self.noise(seeds))

    def path(self, start: int, end: int, num: int, temperature: float = 1.0) -> Tensor:
        k = self.components([start, end])
        t = torch.linspace(0, 1, num)
        means = interpolate_linearly(self.means[k], t)
        scales = interpolate_linearly(self.scales[k], t)
        noise = interpolate_spherically(self.noise([start, end]), t)
        return means + scale_noise(scales, temperature * noise)


class KernelDensitySampler(GaussianSampler):
    """Sampler of a kernel density estimate.

    A path is an arc around the mean in coordinates in which the kernels are isotropic. It passes
    between kernels, but not as close to the mean as a line between two centers would.
    """

    def __init__(self, distribution: KernelDensity) -> None:
        components: Any = distribution.component_distribution
        weights = distribution.mixture_distribution.probs
        super().__init__(distribution, weights, components.loc, components.scale_tril)
        self.scale_tril = distribution.scale_tril

    def path(self, start: int, end: int, num: int, temperature: float = 1.0) -> Tensor:
        mean = self.means.mean(0)
        ends = self.latents([start, end], temperature) - mean
        whitened = torch.linalg.solve_triangular(self.scale_tril, ends.T, upper=False).T
        arc = interpolate_spherically(whitened, torch.linspace(0, 1, num))
        return mean + arc @ self.scale_tril.T


class FlowSampler(LatentSampler):
    """Sampler of a normalizing flow with a normal base distribution."""

    def latents(self, seeds: Sequence[int], temperature: float = 1.0) -> Tensor:
        return self.transform(temperature * self.noise(seeds))

    def path(self, start: int, end: int, num: int, temperature: float = 1.0) -> Tensor:
        t = torch.linspace(0, 1, num)
        noise = interpolate_spherically(self.noise([start, end]), t)
        return self.transform(temperature * noise)

    def transform(self, noise: Tensor) -> Tensor:
        """Return the latents of standard normal noise, (B, latent_dim)."""
        flow: Any = self.distribution
        return flow.transform.inv(flow.base.mean + flow.base.stddev * noise)


class GenericSampler(LatentSampler):
    """Sampler of any other distribution; paths are straight lines, without temperature."""

    def latents(self, seeds: Sequence[int], temperature: float = 1.0) -> Tensor:
        if temperature != 1:
            raise ValueError(
                f"temperature must be 1 for this latent distribution "
                f"({type(self.distribution).__name__}), which is not a function of normal noise; "
                f"got {temperature}"
            )
        latents = []
        for seed in seeds:
            with seeded("sample", seed, "latent"):
                latents.append(self.distribution.sample())
        return torch.stack(latents)

    def path(self, start: int, end: int, num: int, temperature: float = 1.0) -> Tensor:
        ends = self.latents([start, end], temperature)
        return interpolate_linearly(ends, torch.linspace(0, 1, num))


def make_sampler(distribution: Distribution) -> LatentSampler:
    """Return the sampler for a latent distribution with batch shape (), on the CPU."""
    if isinstance(distribution, NormalizingFlow):
        return FlowSampler(distribution)
    if isinstance(distribution, KernelDensity):
        return KernelDensitySampler(distribution)
    if isinstance(distribution, MixtureSameFamily):
        moments = means_and_scales(distribution.component_distribution)
        if moments is not None:
            weights = distribution.mixture_distribution.probs
            return GaussianSampler(distribution, weights, *moments)
    moments = means_and_scales(distribution)
    if moments is None:
        return GenericSampler(distribution)
    means, scales = moments
    return GaussianSampler(distribution, torch.ones(1), means.unsqueeze(0), scales.unsqueeze(0))


def means_and_scales(normals: Distribution) -> tuple[Tensor, Tensor] | None:
    """Return means and scales of normal distributions; None for other distributions."""
    if isinstance(normals, MultivariateNormal):
        return normals.loc, normals.scale_tril
    if isinstance(normals, Independent) and isinstance(normals.base_dist, Normal):
        return normals.base_dist.loc, normals.base_dist.scale
    return None


def scale_noise(scales: Tensor, noise: Tensor) -> Tensor:
    """Return S e, (B, D), for standard deviations (B, D) or Cholesky factors (B, D, D)."""
    return scales * noise if scales.dim() == 2 else (scales @ noise.unsqueeze(-1)).squeeze(-1)


def interpolate_linearly(ends: Tensor, t: Tensor) -> Tensor:
    """Return (1 - t) ends[0] + t ends[1] for each t: (len(t), ...), from two tensors (2, ...)."""
    return torch.lerp(ends[0], ends[1], t.view(-1, *[1] * (ends.dim() - 1)))


def interpolate_spherically(ends: Tensor, t: Tensor) -> Tensor:
    """Return points on the arc between two noise vectors: (len(t), D), from (2, D).

    The norm changes linearly along the arc.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", as recommended for latents
    by White 2016, arXiv:1609.04468.
    """
    norms = ends.double().norm(dim=1, keepdim=True)
    directions = ends.double() / norms.clamp(min=torch.finfo(torch.float64).tiny)
    angle = (directions[0] @ directions[1]).clamp(-1, 1).arccos()
    if angle.sin() < 1e-6:  # parallel, or a single dimension: there is no unique arc
        return interpolate_linearly(ends, t)
    position = t.double().unsqueeze(1)
    start_weights = torch.sin((1 - position) * angle) / angle.sin()
    end_weights = torch.sin(position * angle) / angle.sin()
    arc = start_weights * directions[0] + end_weights * directions[1]
    return (arc * torch.lerp(norms[0], norms[1], position)).to(ends.dtype)
