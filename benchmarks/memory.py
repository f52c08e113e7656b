"""Check that the memory of a run stays constant over its epochs (Linux only).

    python benchmarks/memory.py [EPOCHS]    at least 3; default: 20

Train both stages on synthetic images and print the resident memory of the process after each epoch,
and the ratio between the last and the third epoch (caches fill up in the first two).
"""

import sys
import tempfile
from pathlib import Path

import hydra
import lightning.pytorch as pl

from vaegan.cli.registration import register, to_run_config
from vaegan.stages.stage_table import run_stage

CONF = Path(__file__).parents[1] / "conf"


def resident_mib():
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


class MemoryRecorder(pl.Callback):
    """Record the resident memory after each training epoch."""

    def __init__(self):
        self.sizes = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.sizes.append(resident_mib())


def main():
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    overrides = [
        "dataset=shapes",
        f"vae.trainer.max_epochs={epochs}",
        f"gan.trainer.max_epochs={epochs}",
    ]
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run = to_run_config(hydra.compose("config", [*overrides, "gan.discriminator_warmup=640"]))
    recorders = []
    original_fit = pl.Trainer.fit

    def fit_with_recorder(trainer, *args, **kwargs):
        recorders.append(MemoryRecorder())
        trainer.callbacks.append(recorders[-1])
        original_fit(trainer, *args, **kwargs)

    pl.Trainer.fit = fit_with_recorder
    with tempfile.TemporaryDirectory() as folder:
        run_stage(run, Path(folder))
    for stage, recorder in zip(("vae", "gan"), recorders, strict=True):
        sizes = " ".join(f"{size:.0f}" for size in recorder.sizes)
        ratio = recorder.sizes[-1] / recorder.sizes[2]
        print(f"stage {stage}, MiB after each epoch: {sizes}")
        print(f"stage {stage}: last epoch / third epoch = {ratio:.3f}")


if __name__ == "__main__":
    main()
