"""Sigmoid whose gradient does not vanish, for the images that a GAN's generator makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Largest |logit| whose gradient is exact: the value is within a tenth of an 8-bit level of 0 or 1.
MAX_LOGIT = 8.0


class LeakySigmoid(torch.autograd.Function):
    """Implementation of `leaky_sigmoid`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        """Return sigmoid(logits)."""
        ctx.save_for_backward(logits)
        return logits.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        """Return the gradient with respect to the logits."""
        (logits,) = ctx.saved_tensors
        value = logits.clamp(-MAX_LOGIT, MAX_LOGIT).sigmoid()
        grad = grad_output * value * (1 - value)
        # Gradient descent moves a logit against its gradient.
        moves_outward = (logits.abs() > MAX_LOGIT) & (logits * grad < 0)
        return grad.masked_fill(moves_outward, 0.0)


def leaky_sigmoid(logits: Tensor) -> Tensor:
    """Return sigmoid(logits), any shape, with a gradient that lets saturated values recover.

    The derivative of the sigmoid is about exp(-|logit|). A generator whose pixels have all become
    black or white gets no gradient from the discriminator and stays like that. Here the derivative
    beyond |logit| = 8 is that at 8, but 0 for a gradient whose descent would enlarge |logit|. Up to
    8 both the values and the gradients are those of the sigmoid, beyond it only the values.
    """
    if not logits.requires_grad:
        return logits.sigmoid()
    return LeakySigmoid.apply(logits)
