"""Train the included weights of `digits_cnn`.

    python scripts/train_digits_cnn.py mnist [--root FOLDER]

Train the classifier on the train split and print its accuracy on the val split after each epoch.
Then scale the features on the train split and save the weights of the last epoch. The augmentation
makes the classifier invariant to small shifts; the pixel statistics measure position. The test
split is used once, for the accuracy at the end. The random seed is fixed, but the last digits of
the accuracy vary with the machine and the number of threads.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from vaegan.data.dataset import ImageSource, Split
from vaegan.images import to_float
from vaegan.metrics.digits_cnn import FEATURE_GROUPS, WEIGHTS_DIR, DigitsCnn
from vaegan.runtime.seeding import seeded

BATCH_SIZE = 128
MAX_LR = 0.1
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05


@dataclass(frozen=True)
class Recipe:
    """Number of epochs, and strength of the class-preserving augmentation."""

    epochs: int  # training epochs
    degrees: float  # maximum rotation, degrees
    scale: float  # maximum zoom, fraction of the image size
    shift: float  # maximum shift, pixels; shifts are rounded to whole pixels
    flip: bool  # flip half of the images horizontally
    hole: float  # side of a square that is set to 0, pixels


RECIPES = {
    "mnist": Recipe(epochs=9, degrees=12, scale=0.12, shift=2.5, flip=False, hole=0),
    "fashion_mnist": Recipe(epochs=18, degrees=0, scale=0, shift=2.5, flip=True, hole=7),
}


def uniform(num: int, limit: float) -> Tensor:
    """Return uniform random numbers in [-limit, limit), (num,)."""
    return (torch.rand(num) * 2 - 1) * limit


def augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Rotate, zoom, shift, flip and cover each image at random, (B, 1, 28, 28) in [0, 1]."""
    num = len(images)
    size = images.shape[-1]
    angle = torch.deg2rad(uniform(num, recipe.degrees))
    zoom = 1 + uniform(num, recipe.scale)
    mirror = 1 - 2 * (torch.rand(num) < 0.5).float() if recipe.flip else torch.ones(num)
    shift_x = uniform(num, recipe.shift).round() / (size / 2)
    shift_y = uniform(num, recipe.shift).round() / (size / 2)
    row_x = torch.stack([angle.cos() * mirror, -angle.sin(), shift_x], dim=1)
    row_y = torch.stack([angle.sin() * mirror, angle.cos(), shift_y], dim=1)
    zooms = torch.stack([zoom, zoom, torch.ones(num)], dim=1)
    theta = torch.stack([row_x, row_y], dim=1) * zooms.unsqueeze(1)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, align_corners=False)
    center = torch.rand(2, num, 1) * size
    is_inside = (torch.arange(size) - center).abs() < recipe.hole / 2
    hole = is_inside[0].unsqueeze(2) & is_inside[1].unsqueeze(1)
    return moved.masked_fill(hole.unsqueeze(1), 0.0)


def train_epoch(
    net: DigitsCnn,
    data: Split,
    recipe: Recipe,
    optimizer: torch.optim.SGD,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
) -> None:
    """Train for one epoch in random order, without the last incomplete batch."""
    net.train()
    loss_function = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    num_batches = len(data.labels) // BATCH_SIZE
    for batch in torch.randperm(len(data.labels)).split(BATCH_SIZE)[:num_batches]:
        images = augment(to_float(data.images[batch]), recipe)
        optimizer.zero_grad()
        loss_function(net(images), data.labels[batch]).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def compute_accuracy(net: DigitsCnn, data: Split) -> float:
    """Return the fraction of correctly classified images, computed in float32."""
    net.eval()
    is_correct = []
    for batch in torch.arange(len(data.labels)).split(500):
        predicted = net(to_float(data.images[batch])).argmax(1)
        is_correct.append(predicted == data.labels[batch])
    return torch.cat(is_correct).float().mean().item()


@torch.no_grad()
def set_scales(net: DigitsCnn, data: Split) -> None:
    """Scale each group of features to its total variance in FEATURE_GROUPS on the split."""
    net.eval()
    net.scales.fill_(1)
    batches = torch.arange(len(data.labels)).split(500)
    features = torch.cat([net.features(to_float(data.images[batch])) for batch in batches])
    variances = features.double().var(0).split([group.size for group in FEATURE_GROUPS.values()])
    scales = [
        (group.variance / variance.sum()).sqrt().expand(group.size)
        for group, variance in zip(FEATURE_GROUPS.values(), variances, strict=True)
    ]
    net.scales.copy_(torch.cat(scales))


def train(name: str, root: str | None) -> None:
    """Train on a data set and save the weights."""
    recipe = RECIPES[name]
    source = ImageSource.choices[name].Config(root=root).build()
    source.prepare()
    data = source.split("train")
    val = source.split("val")
    start = time.perf_counter()
    with seeded("digits_cnn", name):
        net = DigitsCnn()
        optimizer = torch.optim.SGD(
            net.parameters(), MAX_LR, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        num_steps = recipe.epochs * (len(data.labels) // BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LR, num_steps, pct_start=0.25)
        for epoch in range(recipe.epochs):
            train_epoch(net, data, recipe, optimizer, schedule)
            accuracy = compute_accuracy(net, val)
            seconds = time.perf_counter() - start
            print(f"epoch {epoch + 1}: val {accuracy:.4f}, {seconds:.0f} s", flush=True)
    set_scales(net, data)
    accuracy = compute_accuracy(net, source.split("test"))
    metadata = {
        "dataset": name,
        "test_accuracy": f"{accuracy:.4f}",
        "command": f"python scripts/train_digits_cnn.py {name}",
        "torch": torch.__version__,
    }
    weights = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_file(weights, WEIGHTS_DIR / f"{name}.safetensors", metadata)
    threads = torch.get_num_threads()
    print(f"{name}: test accuracy {accuracy:.4f}, {threads} threads, torch {torch.__version__}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=RECIPES)
    parser.add_argument("--root", help="folder of the data set; default: that of dataset.root")
    arguments = parser.parse_args()
    train(arguments.dataset, arguments.root)
