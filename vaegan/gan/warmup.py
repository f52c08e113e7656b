"""Discriminator warm-up: the start of a training in which only the discriminator learns."""

from __future__ import annotations

from dataclasses import dataclass

ACCURACY_DECAY = 0.9  # per batch, of the running mean of the accuracy


@dataclass
class DiscriminatorWarmup:
    """Warm-up that ends after a number of images, or once the discriminator is accurate."""

    num_images: int  # images it takes; the actual number once it has ended early
    target_accuracy: float | None  # running accuracy that ends it; None: none does
    accuracy: float = 0.5  # running mean of the share of pairs with the real logit above the fake
    is_finished: bool = False

    def __post_init__(self) -> None:
        if self.num_images == 0:
            self.is_finished = True

    def observe(self, accuracy: float) -> None:
        """Update the running accuracy with that of a batch."""
        self.accuracy = ACCURACY_DECAY * self.accuracy + (1 - ACCURACY_DECAY) * accuracy

    def advance(self, num_images: int) -> None:
        """End the warm-up if it is over after so many images of the training."""
        if self.is_finished:
            return
        is_accurate = self.target_accuracy is not None and self.accuracy >= self.target_accuracy
        if is_accurate or num_images >= self.num_images:
            self.num_images = num_images
            self.is_finished = True
