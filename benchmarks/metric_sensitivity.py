"""Print the scores of damaged real images, and distances as multiples of the real-data baseline.

    python benchmarks/metric_sensitivity.py [--dataset mnist] [--root FOLDER] [--num-images 10000]
    python benchmarks/metric_sensitivity.py --dataset image_folder --root IMAGES [--size 32]
    python benchmarks/metric_sensitivity.py --vae-ckpt RUN    # features of vae_encoder

Each damage is applied to the first training images, which are compared with the test images in the
same way as generated images. The first row is the real-data baseline: the same training images
without damage. Clearly visible damage should score several times the baseline in one of the
distances. FD is the Frechet distance, SW the sliced Wasserstein distance, LC the local contrast
distance, CC (color images only) the color contrast distance, BD the border
contrast distance; the last four
use the first 1,024 images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vaegan.checkpoints.find_checkpoint import load_vae_checkpoint
from vaegan.config import require
from vaegan.data.dataset import ImageSource, Split
from vaegan.images import to_float, to_uint8
from vaegan.metrics.border import border_contrast_distance
from vaegan.metrics.feature_extractors import FeatureExtractor, build_feature_extractor
from vaegan.metrics.local_contrast import color_contrast_distance, local_contrast_distance
from vaegan.metrics.real_statistics import classify, compute_features
from vaegan.metrics.sample_scores import MAX_PIXEL_IMAGES, FeatureBatch
from vaegan.metrics.scores import frechet_distance, manifold_scores
from vaegan.metrics.sliced_wasserstein import sliced_wasserstein
from vaegan.runtime.seeding import make_generator
from vaegan.vae.model import VAE, VAEConfig

CPU = torch.device("cpu")
DISTANCES = {  # score and number of digits
    "FD": (frechet_distance, 2),
    "SW": (sliced_wasserstein, 1),
    "LC": (local_contrast_distance, 3),
    "CC": (color_contrast_distance, 3),
    "BD": (border_contrast_distance, 3),
}


def shift(images: Tensor, pixels: int = 2) -> Tensor:
    """Move images to the right; black pixels enter on the left."""
    return F.pad(images, (pixels, 0))[..., :-pixels]


def add_stray_pixel(images: Tensor) -> Tensor:
    """Set one random pixel of each image to white, in all channels."""
    num, _, height, width = images.shape
    position = torch.randint(height * width, (num, 1, 1), generator=make_generator("stray pixel"))
    position = position.expand(-1, images.shape[1], -1)
    return images.flatten(2).scatter(2, position, 1.0).view_as(images)


def add_noise(images: Tensor, std: float) -> Tensor:
    """Add Gaussian noise to each pixel."""
    noise = torch.randn(images.shape, generator=make_generator("noise"))
    return (images + std * noise).clamp(0, 1)


def blur(images: Tensor) -> Tensor:
    """Average over 3 x 3 pixels with the binomial kernel (1, 2, 1) / 4 in each direction."""
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    weight = kernel.outer(kernel).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(images, weight, padding=1, groups=images.shape[1])


def add_dot_grid(images: Tensor) -> Tensor:
    """Brighten every second pixel of every second row by 0.1."""
    dots = torch.zeros_like(images)
    dots[..., ::2, ::2] = 0.1
    return (images + dots).clamp(0, 1)


def add_frame(images: Tensor) -> Tensor:
    """Blend 20% of mid-gray into the second-outermost ring of pixels."""
    frame = torch.zeros_like(images)
    frame[..., 1:-1, 1:-1] = 0.2
    frame[..., 2:-2, 2:-2] = 0.0
    return torch.lerp(images, torch.full_like(images, 0.5), frame)


def erase_square(images: Tensor, side: int = 4) -> Tensor:
    """Set a random square inside the middle half of each image to black."""
    size = images.shape[-1]
    corner = torch.randint(
        size // 4, 3 * size // 4 - side + 1, (2, len(images), 1), generator=make_generator("square")
    )
    index = torch.arange(size)
    is_inside = (index >= corner) & (index < corner + side)
    hole = is_inside[0].unsqueeze(2) & is_inside[1].unsqueeze(1)
    return images.masked_fill(hole.unsqueeze(1), 0.0)


def shift_first_channel(images: Tensor) -> Tensor:
    """Move the first channel to the right by one pixel; its pixels enter again on the left."""
    return torch.cat([images[:, :1].roll(1, -1), images[:, 1:]], 1)


def repeat_first(images: Tensor) -> Tensor:
    """Repeat the first twentieth of the images 20 times."""
    return torch.cat([images[: len(images) // 20]] * 20)


DAMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "shifted by 1 pixel": lambda images: shift(images, 1),
    "shifted by 2 pixels": shift,
    "gamma 1.5": lambda images: images**1.5,
    "contrast x 0.8": lambda images: images * 0.8,
    "a white pixel in each image": add_stray_pixel,
    "1/20 of the images, 20 times": repeat_first,
    "dot grid, 0.1": add_dot_grid,
    "noise, standard deviation 0.02": lambda images: add_noise(images, 0.02),
    "noise, standard deviation 0.05": lambda images: add_noise(images, 0.05),
    "noise, standard deviation 0.2": lambda images: add_noise(images, 0.2),
    "blurred over 3 x 3 pixels": blur,
    "a square of 4 x 4 pixels erased": erase_square,
    "frame, 20% of mid-gray": add_frame,
    "mirrored": lambda images: images.flip(-1),
    "thresholded at 0.5": lambda images: (images > 0.5).float(),
    "black": torch.zeros_like,
}


def damaged_images(train: Split, num: int) -> dict[str, Tensor]:
    """Return float images (num, C, H, W) by the name of the damage, undamaged ones first."""
    images = to_float(train.images[torch.arange(num)])
    damaged = {"real images": images}
    damaged |= {name: damage(images) for name, damage in DAMAGES.items()}
    if images.shape[1] > 1:
        damaged["first channel shifted by 1 pixel"] = shift_first_channel(images)
    is_kept = torch.as_tensor(train.labels) != train.labels[0]
    if is_kept.count_nonzero() >= num:
        damaged["one class missing"] = to_float(train.images[is_kept.nonzero().squeeze(1)[:num]])
    return damaged


def build_extractor(source: ImageSource, vae_ckpt: str | None) -> FeatureExtractor:
    """Return vae_encoder of a VAE run, or else the default extractor of the data set."""
    if vae_ckpt is None:
        vae = VAE(source.image_shape, VAEConfig())  # digits_cnn reads only its image shape
        return build_feature_extractor(None, vae, source.CLASSIFIER)
    vae = load_vae_checkpoint(vae_ckpt, "--vae-ckpt").build_vae()
    return build_feature_extractor(None, vae, None)


def build_batch(network: FeatureExtractor, images: Tensor) -> FeatureBatch:
    """Return features, class logits and pixels of images uint8, (N, C, H, W)."""
    features = compute_features(network, images, len(images), CPU)
    return classify(network, features, images[:MAX_PIXEL_IMAGES])


@torch.no_grad()
def print_table(network: FeatureExtractor, source: ImageSource, num: int) -> None:
    """Print the scores of each damage as a Markdown table."""
    test_images = source.split("test").images
    num = min(num, len(test_images), len(source.split("train").images))
    expected = f"more than {network.num_features}, the number of features"
    require(num > network.num_features, "number of images", expected, num)
    # The two halves of MNIST's test images were written by different people.
    step = len(test_images) // num
    real = build_batch(network, test_images[torch.arange(0, step * num, step)])
    print(f"{source.config.name}, {network.name}, {network.num_features} features, {num} images\n")
    names = [name for name in DISTANCES if name != "CC" or source.image_shape[0] > 1]
    columns = [column for name in names for column in (name, "/ baseline")]
    print("| " + " | ".join(["images", *columns, "precision", "recall"]) + " |")
    print("|" + "---|" * (len(columns) + 3))
    baseline: dict[str, float] = {}
    for damage, images in damaged_images(source.split("train"), num).items():
        fake = build_batch(network, to_uint8(images))
        distances = {name: DISTANCES[name][0](real, fake) for name in names}
        baseline = baseline or distances
        cells = [
            f"{value:.{DISTANCES[name][1]}f} | {value / baseline[name]:.1f}"
            for name, value in distances.items()
        ]
        manifold = manifold_scores(real, fake)
        cells += [f"{manifold['precision']:.3f} | {manifold['recall']:.3f}"]
        print(f"| {damage} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    choices = ("mnist", "fashion_mnist", "image_folder")
    parser.add_argument("--dataset", choices=choices, default="mnist")
    parser.add_argument("--root", help="folder of the data set; default: that of dataset.root")
    parser.add_argument("--size", type=int, default=32, help="image size of an image folder")
    parser.add_argument("--num-images", type=int, default=10_000)
    parser.add_argument("--vae-ckpt", help="VAE run whose encoder gives the features")
    arguments = parser.parse_args()
    settings = {"image_size": arguments.size} if arguments.dataset == "image_folder" else {}
    config = ImageSource.choices[arguments.dataset].Config(root=arguments.root, **settings)
    source = config.build()
    source.prepare()
    print_table(build_extractor(source, arguments.vae_ckpt), source, arguments.num_images)


if __name__ == "__main__":
    main()
