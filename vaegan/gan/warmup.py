"""Discriminator warm-up: the first part of training, in which only the discriminator is trained."""

from __future__ import annotations

from dataclasses import dataclass

ACCURACY_DECAY = 0.9  # decay per batch of the running mean of the accuracy


@dataclass
class DiscriminatorWarmup:
    """Warm-up that ends after `num_images`, or earlier once the discriminator is accurate.

    The fields are stored in the checkpoint.
    """

    num_images: int  # length in real images; replaced by the actual length when the warm-up ends
    target_accuracy: float | None  # running accuracy that ends the warm-up; None: no early end
    accuracy: float = 0.5  # running mean of the fraction of pairs with real logit > fake logit
    is_finished: bool = False

    def __post_init__(self) -> None:
        if self.num_images == 0:
            self.is_finished = True

    def update_accuracy(self, accuracy: float) -> None:
        """Update the running accuracy with the accuracy on one batch, in [0, 1]."""
        self.accuracy = ACCURACY_DECAY * self.accuracy + (1 - ACCURACY_DECAY) * accuracy

    def finish_if_due(self, num_images: int) -> None:
        """End the warm-up if it has reached its length or its target accuracy.

        Args:
            num_images: Real images used in training so far.
        """
        if self.is_finished:
            return
        is_accurate = self.target_accuracy is not None and self.accuracy >= self.target_accuracy
        if is_accurate or num_images >= self.num_images:
            self.num_images = num_images
            self.is_finished = True
