"""Stage pack: write a data set as chunks for dataset=streaming."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import torch

from vaegan.config import require
from vaegan.data import streaming
from vaegan.data.crops import ImageDataset
from vaegan.data.dataset import ArrayLike, ImageSource, SplitName
from vaegan.runtime.paths import path_override, shell_command
from vaegan.runtime.seeding import make_generator
from vaegan.stages.tool_configs import PackRun

log = logging.getLogger(__name__)


def pack(run: PackRun, output_dir: Path) -> None:
    """Write a data set as chunks for dataset=streaming.

    Each split is written to a subfolder of `run.output` in random order.

    Raises:
        ValueError: litdata is not installed, the data set is missing, or the output exists.
    """
    if find_spec("litdata") is None:
        raise ValueError(streaming.INSTALL)
    is_url = "://" in run.output
    output = run.output.rstrip("/") if is_url else str(Path(run.output).expanduser().resolve())
    source = run.dataset.build()
    skipped = source.prepare()
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    for name in splits:
        if not is_url and Path(output, name).exists():
            raise ValueError(f"{output}/{name} already exists; choose another output, or remove it")
    logging.getLogger("litdata").setLevel(logging.WARNING)
    try:
        for name in splits:
            write_split(source, name, f"{output}/{name}", run)
    except BaseException:
        for name in splits:  # an unfinished output could be mistaken for a complete one
            if not is_url:
                shutil.rmtree(Path(output, name), ignore_errors=True)
        raise
    channels, height, width = source.image_shape
    root = f"dataset.root={output}" if is_url else path_override("dataset.root", Path(output))
    size = f"dataset.image_size={height}"
    if height != width:
        size = f"'dataset.image_size=[{height},{width}]'"
    command = f"python train.py dataset=streaming {root} dataset.channels={channels} {size}"
    print(f"\nskipped files: {len(skipped)}. To train on the chunks:")
    print(f"  {shell_command(command, run.plugins)}")


def write_split(source: ImageSource, name: SplitName, output: str, run: PackRun) -> None:
    """Write one split as chunks.

    Args:
        source: Prepared data set.
        name: Name of the split.
        output: Folder or address of its chunks.
        run: Settings of the stage.

    Raises:
        ValueError: The data set is set to crop or flip images at random.
    """
    import litdata

    data = ImageDataset(source.split(name), list(source.image_shape[1:]))
    key = "dataset.crop and dataset.flip"
    expected = "left at their defaults, because each image is written once"
    require(not data.is_augmented, key, expected, "random crops or flips")
    order = torch.randperm(len(data), generator=make_generator(run.seed, "chunks", name))
    with private_working_folders(), stoppable_writers():
        litdata.optimize(
            functools.partial(pack_item, data.images, data.labels),
            order.tolist(),
            output,
            chunk_bytes=f"{run.chunk_mb}MB",
            num_workers=run.num_workers,
            verbose=False,
            # a forked process need not import PyTorch again; unsafe on macOS, missing on Windows
            start_method="fork" if sys.platform == "linux" else None,
        )
    log.info("%s: %d images in %s", name, len(data), output)


@contextmanager
def private_working_folders() -> Iterator[None]:
    """Set temporary working folders for litdata, which deletes the content of its default ones."""
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


@contextmanager
def stoppable_writers() -> Iterator[None]:
    """Keep the signal handlers of this package, and kill litdata's processes after an error.

    Litdata's own handler for Ctrl-C ends the process with status 0, as if it had finished.
    """
    from litdata.processing import data_processor

    litdata_signal = data_processor.signal
    data_processor.signal = SimpleNamespace(signal=lambda *_: None, SIGINT=litdata_signal.SIGINT)
    before = multiprocessing.active_children()
    try:
        yield
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in before:
                process.kill()
        raise
    finally:
        data_processor.signal = litdata_signal


def pack_item(images: ArrayLike, labels: ArrayLike, index: int) -> bytes:
    """Return one image and its label as bytes."""
    indices = torch.tensor([index])
    return streaming.pack(images[indices][0], int(labels[indices]))
