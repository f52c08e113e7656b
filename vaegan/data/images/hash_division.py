"""Division of images into train, val and test by a hash of their content.

An image keeps its split when images are added, moved or renamed, as long as the fractions stay the
same, and identical images are never in two splits.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

SHARE = 0.1  # default fraction of the images for val, and for test
MIN_IMAGES_PER_SPLIT = 100  # in small folders, the fraction rises to reach this number of images
MAX_SHARE = 0.2  # upper limit of the default fraction


def default_fraction(num_images: int) -> float:
    """Return the default fraction of images for val, and for test, in (0, 1).

    It is 10 percent, or more if needed to get 100 images, but at most 20 percent.
    """
    return min(max(SHARE, MIN_IMAGES_PER_SPLIT / max(1, num_images)), MAX_SHARE)


class HashDivision(NamedTuple):
    """Division into splits of about the given sizes."""

    val_fraction: float  # in [0, 1)
    test_fraction: float  # in [0, 1)
    seed: int

    def assign_split(self, digest: bytes) -> str:
        """Return the split of an image: the lowest hashes go to val, the highest to test.

        Args:
            digest: Hash of the image's content.
        """
        key = str(self.seed).encode()
        keyed_digest = hashlib.blake2b(digest, key=key, digest_size=8).digest()
        position = int.from_bytes(keyed_digest, "big") / 2**64
        if position < self.val_fraction:
            return "val"
        if position >= 1 - self.test_fraction:
            return "test"
        return "train"
