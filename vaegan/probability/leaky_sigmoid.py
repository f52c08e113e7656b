"""Sigmoid with a gradient that lets saturated values recover, for the generator of a GAN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softshrink


class LeakySigmoid(torch.autograd.Function):
    """Implementation of `leaky_sigmoid`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bound: float) -> Tensor:
        """Return sigmoid(logits)."""
        ctx.save_for_backward(logits)
        ctx.bound = bound
        return logits.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        """Return the gradient with respect to the logits, and None for the bound."""
        (logits,) = ctx.saved_tensors
        bound = ctx.bound
        value = (-logits.abs().clamp(max=bound)).sigmoid()  # near 0, where it is precise
        grad = torch.ops.aten.sigmoid_backward(grad_output, value)
        # Gradient descent moves a logit against its gradient.
        moves_outward = softshrink(logits, bound) * grad < 0
        return grad.masked_fill(moves_outward, 0.0), None


def leaky_sigmoid(logits: Tensor, bound: float) -> Tensor:
    """Return sigmoid(logits), with a changed gradient where |logit| > bound.

    There the derivative is that at the bound, and the gradient is 0 if descent along it would
    enlarge |logit|. The derivative of the sigmoid itself falls like exp(-|logit|), so a generator
    whose pixels have all become black gets no gradient from the discriminator and stays black.

    Args:
        logits: Any shape.
        bound: |logit| beyond which a value counts as saturated; 0: the gradient is not changed.
    """
    return LeakySigmoid.apply(logits, bound) if bound else logits.sigmoid()
