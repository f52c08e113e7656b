"""Coupling layers of a normalizing flow."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import zuko
from torch import Tensor
from torch.distributions import Transform


class IndexedCouplingTransform(zuko.transforms.CouplingTransform):  # type: ignore[misc]
    """Coupling transform that takes the indices of its two parts as arguments.

    Zuko recomputes the indices from a mask in every step. On a GPU this forces a synchronization,
    because the host has to wait for the number of indices.

    Args:
        meta: Maps the constant part x_a to the transform of the other part.
        constant: Indices of x_a.
        transformed: Indices of x_b.
    """

    def __init__(self, meta: Any, constant: Tensor, transformed: Tensor) -> None:
        Transform.__init__(self)
        self.meta = meta
        self.idx_a = constant
        self.idx_b = transformed


class CouplingLayer(zuko.flows.GeneralCouplingTransform):  # type: ignore[misc]
    """Zuko's coupling layer with an alternating mask and indices that are computed once.

    Args:
        num_features: Dimensions of the latents, at least 2.
        keep_odd: True to keep the odd dimensions constant, False to keep the even ones constant.
        options: Keyword arguments of `zuko.flows.GeneralCouplingTransform`.
    """

    constant: Tensor
    transformed: Tensor

    def __init__(self, num_features: int, keep_odd: bool, **options: Any) -> None:
        mask = torch.arange(num_features) % 2 == int(keep_odd)
        super().__init__(num_features, mask=mask, **options)
        self.register_buffer("constant", mask.nonzero().squeeze(-1), persistent=False)
        self.register_buffer("transformed", (~mask).nonzero().squeeze(-1), persistent=False)

    def forward(self, c: Tensor | None = None) -> Transform:
        return IndexedCouplingTransform(partial(self.meta, c), self.constant, self.transformed)
