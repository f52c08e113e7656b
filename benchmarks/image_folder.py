"""Compare the loader of dataset=image_folder with torchvision's ImageFolder and DataLoader.

    python benchmarks/image_folder.py speed [ROUNDS]
        Images per second at 64 x 64 pixels, with 0 and 2 workers.
    python benchmarks/image_folder.py size
        Memory and startup time with 1,000, 10,000 and 100,000 small files.

All files are generated. For `speed`, they are JPEG files of about 500 x 375 pixels with the
spectrum of photographs. The first pass decodes the folder into the cache and reads each image once;
later passes read from the cache. Each round measures both loaders. Ratios are between medians.
"""

import io
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms import v2

from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.image_folder import ImageFolder

NUM_FILES, BATCH = 2000, 128


def photograph(rng, height, width):
    """Return noise with the 1/f amplitude spectrum of photographs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / height
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency
    image = np.fft.irfft2(spectrum, (height, width))
    gray = image[:1] * 0.8
    image = gray / gray.std() + image / image.std() * 0.4
    return Image.fromarray((image * 50 + 120).clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def make_photographs(folder, quality):
    """Write JPEG files in ten class folders; return the mean file size in bytes."""
    rng, sizes = np.random.default_rng(0), []
    for i in range(NUM_FILES):
        path = folder / f"class{i % 10}" / f"{i:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        photograph(rng, int(rng.integers(350, 400)), int(rng.integers(470, 530))).save(
            path, quality=quality
        )
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes)


def torchvision_epoch(folder, num_workers):
    """Return the images per second of an epoch with ImageFolder and DataLoader."""
    steps = [v2.Resize(64), v2.CenterCrop(64), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    data = TorchvisionFolder(str(folder), transform=v2.Compose(steps))
    start = time.perf_counter()
    seen = sum(
        len(images) for images, _ in DataLoader(data, BATCH, shuffle=True, num_workers=num_workers)
    )
    return seen / (time.perf_counter() - start)


def our_module(folder, cache, num_workers):
    """Return the data module of this project; `num_workers` is the number of decoding threads."""
    config = ImageFolder.Config(root=str(folder), cache=str(cache), num_threads=max(1, num_workers))
    return ImageDataModule(config.build(), LoaderConfig(batch_size=BATCH), seed=0)


def our_epoch(data):
    """Return the number of training images in one epoch."""
    return sum(len(data.on_after_batch_transfer(batch, 0)[0]) for batch in data.train_dataloader())


def our_first_pass(folder, num_workers):
    """Return the files per second of decoding the folder plus one epoch."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        our_epoch(our_module(folder, cache, num_workers))
        return NUM_FILES / (time.perf_counter() - start)


def our_later_pass(folder, cache):
    """Return the images per second of epochs that read from the cache."""
    data = our_module(folder, cache, 1)
    our_epoch(data)
    start, seen = time.perf_counter(), sum(our_epoch(data) for _ in range(20))
    return seen / (time.perf_counter() - start)


def speed(rounds):
    """Print the speed of both loaders for each JPEG quality and number of workers."""
    for quality, workers in itertools.product((75, 90), (0, 2)):
        with tempfile.TemporaryDirectory() as temporary:
            folder, cache = Path(temporary) / "images", Path(temporary) / "cache"
            folder.mkdir()
            size = make_photographs(folder, quality) / 1000
            print(f"{NUM_FILES} files of quality {quality}, {size:.0f} kB each", flush=True)
            torchvision_speeds, first, later = [], [], []
            for i in range(rounds):
                torchvision_speeds.append(torchvision_epoch(folder, workers))
                first.append(our_first_pass(folder, workers))
                later.append(our_later_pass(folder, cache))
                print(
                    f"round {i}: torchvision {torchvision_speeds[-1]:.0f}, "
                    f"first pass {first[-1]:.0f}, later passes {later[-1]:.0f} images/s",
                    flush=True,
                )
            base = statistics.median(torchvision_speeds)
            print(
                f"{workers} workers: torchvision {base:.0f} images/s; relative to torchvision: "
                f"first pass {statistics.median(first) / base:.2f}, "
                f"later passes {statistics.median(later) / base:.0f}",
                flush=True,
            )


def make_small_files(folder, num):
    """Write different 16 x 16 images in subfolders of 1,000 files."""
    base = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for i in range(num):
        if i % 1000 == 0:
            part = folder / f"{i // 1000:03d}"
            part.mkdir(parents=True)
        base[0, 0], base[0, 1] = i % 256, i // 256 % 256
        base[0, 2] = i // 65536
        buffer = io.BytesIO()
        Image.fromarray(base).save(buffer, "BMP")
        (part / f"{i:06d}.bmp").write_bytes(buffer.getvalue())


def memory():
    """Return the anonymous and the file-backed resident memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return [
        int(line.split()[1]) / 1024
        for name in ("RssAnon", "RssFile")
        for line in lines
        if line.startswith(name)
    ]


def one_run(folder, cache):
    """Print the startup time in seconds, the added anonymous memory and the mapped files in MiB."""
    before = memory()[0]
    start = time.perf_counter()
    config = ImageFolder.Config(root=folder, cache=cache, image_size=32)
    data = ImageDataModule(config.build(), LoaderConfig(batch_size=BATCH), seed=0)
    next(iter(data.train_dataloader()))
    seconds = time.perf_counter() - start
    our_epoch(data)
    anonymous, mapped = memory()
    print(seconds, anonymous - before, mapped)


def size():
    """Print the cache build time, startup time and memory for each number of files."""
    with tempfile.TemporaryDirectory() as temporary:
        for num in (1000, 10_000, 100_000):
            folder, cache = Path(temporary) / str(num), Path(temporary) / f"cache{num}"
            make_small_files(folder, num)
            command = [sys.executable, __file__, "one", str(folder), str(cache)]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            build_seconds = time.perf_counter() - start
            results = []
            for _ in range(3):
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                results.append([float(word) for word in run.stdout.split()])
            seconds, anonymous, mapped = (
                statistics.median(column) for column in zip(*results, strict=True)
            )
            print(
                f"{num} files: cache built in {build_seconds:.1f} s; startup with the cache "
                f"{seconds:.2f} s; {anonymous:.0f} MiB of anonymous memory and {mapped:.0f} MiB of "
                "mapped files (libraries and cache; reclaimable by the system)",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1] == "speed":
        speed(int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    elif sys.argv[1] == "size":
        size()
    else:
        one_run(*sys.argv[2:])
