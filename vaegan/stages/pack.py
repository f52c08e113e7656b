"""Stage pack: write a data set in chunks that dataset=streaming reads."""

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
from vaegan.data import streaming
from vaegan.data.crops import ImageDataset
from vaegan.data.dataset import ArrayLike, SplitName
from vaegan.runtime.seeding import make_generator
from vaegan.stages.tool_configs import PackRun

log = logging.getLogger(__name__)


def pack(run: PackRun, output_dir: Path) -> None:
    """Write the three splits below `run.output`, each in an order that mixes the classes.

    Raises:
        ValueError: litdata or the data are missing, or the output exists.
    """
    try:
        import litdata
    except ImportError as error:
        raise ValueError(streaming.INSTALL) from error
    is_address = "://" in run.output
    output = run.output.rstrip("/") if is_address else str(Path(run.output).expanduser().resolve())
    source = run.dataset.build()
    skipped = source.prepare()
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    for name in splits:
        if not is_address and Path(output, name).exists():
            raise ValueError(f"{output}/{name} already exists; choose another output, or remove it")
    logging.getLogger("litdata").setLevel(logging.WARNING)
    for name in splits:
        data = ImageDataset(source.split(name), list(source.image_shape[1:]))
        key = "dataset.crop and dataset.flip"
        expected = "left as they are: an image is written once"
        require(not data.is_augmented, key, expected, "random crops or flips")
        order = torch.randperm(len(data), generator=make_generator(run.seed, "chunks", name))
        with private_working_folders():
            litdata.optimize(
                functools.partial(pack_item, data.images, data.labels),
                order.tolist(),
                f"{output}/{name}",
                chunk_bytes=f"{run.chunk_mb}MB",
                num_workers=run.num_workers,
                verbose=False,
            )
        log.info("%s: %d images in %s/%s", name, len(data), output, name)
    channels, height, width = source.image_shape
    settings = f"dataset.channels={channels} dataset.image_size=[{height},{width}]"
    print(f"\n{len(skipped)} files skipped; to train on the others:")
    print(f"  python train.py dataset=streaming dataset.root={run.output} {settings}")


@contextmanager
def private_working_folders() -> Iterator[None]:
    """Set working folders for litdata, which empties those that it uses (/tmp/data, ...)."""
    names = ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER")
    old = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="vaegan-") as folder:
        for name in names:
            os.environ[name] = f"{folder}/{name}"
        try:
            yield
        finally:
            for name, value in old.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def pack_item(images: ArrayLike, labels: ArrayLike, index: int) -> bytes:
    """Return the bytes that are written of an image."""
    indices = torch.tensor([index])
    return streaming.pack(images[indices][0], int(labels[indices]))
