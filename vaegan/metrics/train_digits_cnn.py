"""Train the shipped weights: `python -m vaegan.metrics.train_digits_cnn mnist [--root FOLDER]`.

Trains on the train split, prints the accuracy on val after each epoch, and keeps the last weights; test is read once,
at the end, for the figure that is reported. The seed is fixed, but the last digits vary with machine and thread count.
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
from vaegan.metrics.digits_cnn import WEIGHTS, DigitsCnn
from vaegan.runtime.seeding import seeded


@dataclass(frozen=True)
class Recipe:
    """How long to train, and how far an image may be moved and still be of its class."""

    epochs: int
    degrees: float  # rotation, at most
    scale: float  # zoom, at most, as a share of the size
    shift: float  # whole pixels, at most
    flip: bool  # left to right, half of the images
    hole: float  # side of a square set to 0, pixels


RECIPES = {
    "mnist": Recipe(epochs=9, degrees=12, scale=0.12, shift=2.5, flip=False, hole=0),
    "fashion_mnist": Recipe(epochs=18, degrees=0, scale=0, shift=2.5, flip=True, hole=7),
}
BATCH_SIZE, MAX_LR, WEIGHT_DECAY, LABEL_SMOOTHING = 128, 0.1, 5e-4, 0.05


def uniform(num: int, limit: float) -> Tensor:
    """(num,) random numbers in [-limit, limit)."""
    return (torch.rand(num) * 2 - 1) * limit


def augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Each image turned, zoomed, moved, flipped and covered at random; (B, 1, 28, 28) in [0, 1]."""
    num, half = len(images), images.shape[-1] / 2
    angle, zoom = torch.deg2rad(uniform(num, recipe.degrees)), 1 + uniform(num, recipe.scale)
    mirror = 1 - 2 * (torch.rand(num) < 0.5).float() if recipe.flip else torch.ones(num)
    across = torch.stack(
        [angle.cos() * mirror, -angle.sin(), uniform(num, recipe.shift).round() / half], dim=1
    )
    down = torch.stack(
        [angle.sin() * mirror, angle.cos(), uniform(num, recipe.shift).round() / half], dim=1
    )
    theta = torch.stack([across, down], dim=1) * torch.stack(
        [zoom, zoom, torch.ones(num)], dim=1
    ).unsqueeze(1)
    moved = grid_sample(
        images, affine_grid(theta, list(images.shape), align_corners=False), align_corners=False
    )
    pixel, center = torch.arange(images.shape[-1]), torch.rand(2, num, 1) * images.shape[-1]
    inside = (pixel - center).abs() < recipe.hole / 2
    return moved.masked_fill((inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1), 0.0)


def train_epoch(
    net: DigitsCnn,
    data: Split,
    recipe: Recipe,
    optimizer: torch.optim.SGD,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
) -> None:
    """One pass over the data in a random order; the last incomplete batch is left out."""
    net.train()
    loss_function = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    for batch in torch.randperm(len(data.labels)).split(BATCH_SIZE)[
        : len(data.labels) // BATCH_SIZE
    ]:
        images = augment(to_float(data.images[batch]), recipe)
        with torch.autocast(
            "cpu", torch.bfloat16
        ):  # twice as fast; the weights themselves stay float32
            logits = net(images)
        optimizer.zero_grad()
        loss_function(logits.float(), data.labels[batch]).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(net: DigitsCnn, data: Split) -> float:
    """Share of the images put into their class, in float32."""
    net.eval()
    parts = torch.arange(len(data.labels)).split(500)
    right = [net(to_float(data.images[part])).argmax(1) == data.labels[part] for part in parts]
    return torch.cat(right).float().mean().item()


def train(name: str, root: str | None) -> None:
    """Train on one data set and write its file of weights."""
    recipe, source = RECIPES[name], ImageSource.choices[name].Config(root=root).build()
    source.prepare()
    data, val, start = source.split("train"), source.split("val"), time.perf_counter()
    with seeded("digits_cnn", name):
        net = DigitsCnn()
        optimizer = torch.optim.SGD(
            net.parameters(), MAX_LR, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        num_steps = recipe.epochs * (len(data.labels) // BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LR, num_steps, pct_start=0.25)
        for epoch in range(recipe.epochs):
            train_epoch(net, data, recipe, optimizer, schedule)
            print(
                f"epoch {epoch + 1}: val {accuracy(net, val):.4f}, {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    test = accuracy(net, source.split("test"))
    command = f"python -m vaegan.metrics.train_digits_cnn {name}"
    metadata = {
        "dataset": name,
        "test_accuracy": f"{test:.4f}",
        "command": command,
        "torch": torch.__version__,
    }
    weights = {key: value.contiguous() for key, value in net.state_dict().items()}
    save_file(weights, WEIGHTS / f"{name}.safetensors", metadata)
    print(
        f"{name}: test accuracy {test:.4f}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=RECIPES)
    parser.add_argument("--root", help="folder of the data set; default: as for dataset.root")
    arguments = parser.parse_args()
    train(arguments.dataset, arguments.root)
