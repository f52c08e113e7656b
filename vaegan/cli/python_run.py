"""`vaegan.run`: the command line as a function, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vaegan.cli.main import CONF
from vaegan.cli.plugins import find_plugins, load_plugins
from vaegan.cli.registration import register, to_run_config
from vaegan.cli.resume import expand_resume
from vaegan.cli.suggestions import explain, explain_null_component
from vaegan.config import require
from vaegan.stages.execute import execute
from vaegan.stages.stage_table import STAGES, stage_of
from vaegan.training.stage_result import StageResult


def run(*words: str) -> StageResult | None:
    """Run a stage with the words of the command line, in this process.

        result = vaegan.run("stage=vae", "dataset=mnist", "latent_dim=16")
        model = vaegan.load(result.checkpoint)

    Args:
        words: Settings such as "stage=vae". Options such as -m (sweeps) are for the command line.

    Returns:
        Folder, best checkpoint and metrics of a run that trains or evaluates; None for other
        stages.

    Raises:
        ValueError: A key or a choice is unknown, a value is out of range, or the run failed in a
            way that the user can fix.
    """
    options = [word for word in words if word.startswith("-")]
    require(not options, "vaegan.run", "given settings KEY=VALUE, not options", options)
    load_plugins(find_plugins(words, CONF))
    register()
    words = tuple(expand_resume(words))
    try:
        config, folder = compose_run(words)
        run_config = to_run_config(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error, words)) from error
    except AssertionError as error:
        raise ValueError(explain_null_component(words)) from error
    if STAGES[stage_of(run_config)].writes_files:
        record_words(config, words, folder)
    return execute(run_config, folder)


def compose_run(words: Sequence[str]) -> tuple[DictConfig, Path]:
    """Compose the config of a command line; return it with the run folder that it names."""
    with separate_hydra():
        config = compose("config", list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(config)  # read by ${hydra:...} in hydra.run.dir
        folder = Path(config.hydra.run.dir)
        with open_dict(config):
            del config["hydra"]
    return config, folder


@contextmanager
def separate_hydra() -> Iterator[None]:
    """Use Hydra with the project's configs, and restore the caller's use of it."""
    state: Any = GlobalHydra.instance()
    outer, outer_config = state.hydra, HydraConfig.instance().cfg
    state.clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        state.hydra, HydraConfig.instance().cfg = outer, outer_config


def record_words(config: DictConfig, words: Sequence[str], folder: Path) -> None:
    """Write the composed config and the words into the run folder, as Hydra does."""
    hydra_folder = folder / ".hydra"
    hydra_folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, hydra_folder / "config.yaml")
    OmegaConf.save(OmegaConf.create(list(words)), hydra_folder / "overrides.yaml")
