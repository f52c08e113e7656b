"""Train a VAE by its ELBO, then a GAN whose generator starts as the VAE's decoder.

    import vaegan

    vaegan.run("stage=vae", "dataset=mnist")  # the words of the command line
    model = vaegan.load("last")  # or a run folder, a checkpoint, an export
    images = model.sample(16, seed=0)  # (16, C, H, W), float32 in [0, 1]

Importing the package is fast: torch is imported with the first use of a name below.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaegan.cli.python_run import run
    from vaegan.inference.load import load
    from vaegan.inference.trained_gan import TrainedGAN
    from vaegan.inference.trained_vae import TrainedVAE

__version__ = "0.1.0"
__all__ = ["TrainedGAN", "TrainedVAE", "load", "run"]
MODULES = {
    "TrainedGAN": "vaegan.inference.trained_gan",
    "TrainedVAE": "vaegan.inference.trained_vae",
    "load": "vaegan.inference.load",
    "run": "vaegan.cli.python_run",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(importlib.import_module(MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
