"""Stage optimize: write a data set in chunks, which dataset=streaming reads from anywhere."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import torch

from vaegan.data.datasets import Rows, SplitName
from vaegan.data.streaming import INSTALL, pack
from vaegan.data.views import ImageDataset
from vaegan.random import generator
from vaegan.stages.runs import OptimizeRun

log = logging.getLogger(__name__)


def optimize(run: OptimizeRun) -> None:
    """Write the three splits below `run.output`, each in an order of its own that mixes the classes.

    Raises:
        ValueError: litdata is not there, the data are not, or there is something in the place already.
    """
    try:
        import litdata
    except ImportError as error:
        raise ValueError(INSTALL) from error
    output = run.output.rstrip("/") if "://" in run.output else str(Path(run.output).expanduser().resolve())
    source = run.dataset.build()
    skipped = source.prepare()
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    for name in splits:
        if "://" not in output and Path(output, name).exists():
            raise ValueError(f"{output}/{name} is there already; choose another output, or remove it")
    for name in splits:
        data = ImageDataset(source.split(name), list(source.image_shape[1:]))
        order = torch.randperm(len(data), generator=generator(run.seed, "chunks", name))
        litdata.optimize(
            functools.partial(item, data.images, data.labels),
            order.tolist(),
            f"{output}/{name}",
            chunk_bytes=f"{run.chunk_mb}MB",
            num_workers=run.num_workers,
            verbose=False,
        )
        log.info("%s: %d images in %s/%s", name, len(data), output, name)
    channels, height, width = source.image_shape
    print(f"\n{len(skipped)} files skipped; to train on the others:")
    print(f"  python train.py dataset=streaming dataset.root={run.output} dataset.channels={channels} ", end="")
    print(f"dataset.image_size=[{height},{width}]")


def item(images: Rows, labels: Rows, index: int) -> bytes:
    """What is written of an image."""
    which = torch.tensor([index])
    return pack(images[which][0], int(labels[which]))
