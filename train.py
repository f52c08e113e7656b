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
from hydra.types import RunMode
from omegaconf import DictConfig

from vaegan.cli.errors import readable_errors
from vaegan.cli.registration import register, to_run_config
from vaegan.cli.resume import expand_resume, with_rank_overrides
from vaegan.stages.execute import execute
from vaegan.sweeps.jobs import run_job


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    if job.mode == RunMode.MULTIRUN:
        return run_job(lambda: to_run_config(config), list(job.overrides.task), folder)
    run = to_run_config(config)
    with readable_errors():
        result = execute(run, folder)
    return None if result is None else result.metrics[run.sweep_metric or result.tag]


if __name__ == "__main__":
    register()
    with readable_errors():
        sys.argv[1:] = with_rank_overrides(expand_resume(sys.argv[1:]))
        main()
