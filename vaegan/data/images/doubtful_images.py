"""Warnings about images that can be read, but are probably misinterpreted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vaegan.data.images.decoding import ImageTraits
from vaegan.data.images.memmap import MemmapImages
from vaegan.data.images.on_demand import ImagesOnDemand

NEARLY_ALL = 0.95  # fraction of the 16-bit images that decides on their bit depth
UNUSED_BITS = 2  # unused bits of 16-bit images above which a warning is given
NUM_SAMPLED_IMAGES = 64  # images whose levels are inspected
NARROW_RANGE = 64  # of 256 levels; an image with a smaller range is nearly constant


def describe_doubtful_traits(traits: Iterable[ImageTraits], bit_depth: int) -> Iterator[str]:
    """Yield warnings about 16-bit images of another bit depth, and about stacks.

    Args:
        traits: Traits of all images.
        bit_depth: Bits of the levels in 16-bit files, according to the settings.
    """
    traits = list(traits)
    num_bits = sorted(trait.num_bits for trait in traits if trait.num_bits)
    if num_bits:
        typical = num_bits[int(NEARLY_ALL * (len(num_bits) - 1))]
        num_clipped = sum(number > bit_depth for number in num_bits)
        if typical <= bit_depth - UNUSED_BITS:
            yield (
                f"nearly all of the {len(num_bits)} 16-bit images stay below level {2**typical}, "
                f"and are read as nearly black; set dataset.bit_depth={max(8, typical)}"
            )
        if num_clipped:
            yield (
                f"16-bit images with levels above {2**bit_depth - 1}, which are clipped: "
                f"{num_clipped} of {len(num_bits)}; raise dataset.bit_depth={bit_depth}"
            )
    num_stacks = sum(trait.is_stack for trait in traits)
    if num_stacks:
        yield f"multi-page TIFF files: {num_stacks}; only the first page of each is used"


def describe_constant_images(images: MemmapImages | ImagesOnDemand) -> str | None:
    """Return a warning if at least half of a sample of the training images are nearly constant."""
    sample = images.sample(NUM_SAMPLED_IMAGES)
    ranges = sample.amax((2, 3)).int() - sample.amin((2, 3)).int()
    num_constant = int((ranges.amax(1) < NARROW_RANGE).sum())
    if num_constant == 0 or num_constant < len(sample) / 2:
        return None
    return (
        f"{num_constant} of {len(sample)} sampled training images are nearly constant (less than "
        f"{NARROW_RANGE} of 256 levels in each channel); check the files"
    )
