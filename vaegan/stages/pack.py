"""Stage optimize: write a data set in chunks, which dataset=streaming reads from anywhere."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from vaegan.config import require
from vaegan.data.crops import ImageDataset
from vaegan.data.dataset import ArrayLike, SplitName
from vaegan.data.streaming import INSTALL, pack
from vaegan.runtime.seeding import generator
from vaegan.stages.tool_configs import PackRun

log = logging.getLogger(__name__)


def optimize(run: PackRun) -> None:
    """Write the three splits below `run.output`, each in an order of its own that mixes the classes.

    Raises:
        ValueError: litdata is not there, the data are not, or there is something in the place already.
    """
    try:
        import litdata
    except ImportError as error:
        raise ValueError(INSTALL) from error
    output = (
        run.output.rstrip("/")
        if "://" in run.output
        else str(Path(run.output).expanduser().resolve())
    )
    source = run.dataset.build()
    skipped = source.prepare()
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    for name in splits:
        if "://" not in output and Path(output, name).exists():
            raise ValueError(
                f"{output}/{name} is there already; choose another output, or remove it"
            )
    logging.getLogger("litdata").setLevel(logging.WARNING)
    for name in splits:
        data = ImageDataset(source.split(name), list(source.image_shape[1:]))
        is_plain = not data.is_augmented
        require(
            is_plain,
            "dataset.crop and dataset.flip",
            "left as they are: a picture is written once",
            "random views",
        )
        order = torch.randperm(len(data), generator=generator(run.seed, "chunks", name))
        with working_folders():
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
    print(
        f"  python train.py dataset=streaming dataset.root={run.output} dataset.channels={channels} ",
        end="",
    )
    print(f"dataset.image_size=[{height},{width}]")


@contextmanager
def working_folders() -> Iterator[None]:
    """Folders of our own for litdata, which empties those that it works in: /tmp/data and /tmp/chunks otherwise."""
    names = ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="vaegan-") as folder:
        os.environ.update({name: f"{folder}/{name}" for name in names})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                os.environ.update({} if value is None else {name: value})


def item(images: ArrayLike, labels: ArrayLike, index: int) -> bytes:
    """What is written of an image."""
    which = torch.tensor([index])
    return pack(images[which][0], int(labels[which]))
