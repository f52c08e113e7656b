"""Train a VAE, then a GAN that starts from it:

python train.py                                     both stages
python train.py stage=vae                           the VAE alone
python train.py stage=evaluate ckpt=RUN_FOLDER      likelihood and latent space of a trained VAE
python train.py stage=gan vae_ckpt=RUN_FOLDER       a GAN from a trained VAE
python train.py resume=RUN_FOLDER                   go on with a run that was stopped
python train.py --help                              all choices and settings
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vaegan.commands import resumed
from vaegan.launching import execute
from vaegan.schemas import readable_errors, register, typed


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    run = typed(config)
    result = execute(run, Path(HydraConfig.get().runtime.output_dir))
    return None if result is None else result.metrics[run.sweep_metric]


if __name__ == "__main__":
    register()
    with readable_errors():
        sys.argv[1:] = resumed(sys.argv[1:])
        main()
