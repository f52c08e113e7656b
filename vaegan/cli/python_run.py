"""`vaegan.run`: the command line as a function, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vaegan.cli.hydra_app import prepare_words
from vaegan.cli.hydra_errors import explain
from vaegan.cli.main import CONF
from vaegan.cli.registration import to_run_config
from vaegan.cli.reservation import ending_reservation
from vaegan.cli.run_callbacks import reserve_folder, without_hydra_node
from vaegan.config import require
from vaegan.stages.execute import execute
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES, stage_of
from vaegan.training.stage_result import StageResult


def run(*words: str) -> StageResult | None:
    """Run a stage in this process, with the same arguments as on the command line.

        result = vaegan.run("stage=vae", "dataset=mnist", "latent_dim=16")
        model = vaegan.load(result.checkpoint)

    Args:
        words: Settings such as "stage=vae". Options such as -m (sweeps) are not supported.

    Returns:
        Folder, best checkpoint and metrics of a run that trains or evaluates; None for other
        stages.

    Raises:
        ValueError: A key or a choice is unknown, a value is out of range, or the run failed in a
            way that the user can fix.
    """
    options = [word for word in words if word.startswith("-")]
    require(not options, "vaegan.run", "given settings KEY=VALUE, not options", options)
    with ending_reservation():
        with separate_hydra():
            run_config, folder = prepare_run(prepare_words(words, CONF))
        return execute(run_config, folder)


def prepare_run(words: Sequence[str]) -> tuple[RunConfig, Path]:
    """Compose the config of a command line and reserve its run folder; return both.

    Raises:
        ValueError: The config is invalid, or the command may not write to the folder.
    """
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", list(words), return_hydra_config=True)
            run = to_run_config(without_hydra_node(config))
    except Exception as error:
        if (message := explain(error, words)) is not None:
            raise ValueError(message) from error
        raise
    if STAGES[stage_of(run)].writes_files:
        reserve_folder(config, run)
        record_words(config, words)
    return run, Path(config.hydra.run.dir)


@contextmanager
def separate_hydra() -> Iterator[None]:
    """Clear the global state of Hydra, and restore the previous state on exit."""
    outer, outer_config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        # `initialize_config_dir` replaces the instance.
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = outer, outer_config


def record_words(config: DictConfig, words: Sequence[str]) -> None:
    """Write the composed config and the overrides to the run folder, as Hydra does."""
    hydra_folder = Path(config.hydra.run.dir, config.hydra.output_subdir)
    hydra_folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(without_hydra_node(config), hydra_folder / "config.yaml")
    OmegaConf.save(OmegaConf.create(list(words)), hydra_folder / "overrides.yaml")
