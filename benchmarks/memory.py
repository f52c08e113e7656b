"""Memory of a run over its epochs: it must stay flat.

    python benchmarks/memory.py [epochs]

Prints the resident memory of the process after each epoch of both stages on synthetic images (Linux
only), and the last epoch's share of the third's (the first two still fill caches).
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
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


class Watch(pl.Callback):
    def __init__(self):
        self.sizes = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.sizes.append(resident_mib())


def main():
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    settings = [
        "dataset=shapes",
        f"vae.trainer.max_epochs={epochs}",
        f"gan.trainer.max_epochs={epochs}",
    ]
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run = to_run_config(hydra.compose("config", [*settings, "gan.discriminator_warmup=640"]))
    watches, original = [], pl.Trainer.fit

    def watched(trainer, *args, **kwargs):
        watches.append(Watch())
        trainer.callbacks.append(watches[-1])
        original(trainer, *args, **kwargs)

    pl.Trainer.fit = watched
    with tempfile.TemporaryDirectory() as folder:
        run_stage(run, Path(folder))
    for stage, watch in zip(("vae", "gan"), watches, strict=True):
        sizes = " ".join(f"{size:.0f}" for size in watch.sizes)
        ratio = watch.sizes[-1] / watch.sizes[2]
        print(f"stage {stage}, MiB after each epoch: {sizes}")
        print(f"stage {stage}: the last epoch holds {ratio:.3f} of the third's memory")


if __name__ == "__main__":
    main()
