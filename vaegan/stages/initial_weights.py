"""Start training from the weights of an earlier model of the same stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vaegan.checkpoints.checkpoint import VAE_PREFIX, Checkpoint, load_checkpoint
from vaegan.checkpoints.find_checkpoint import find_checkpoint, load_vae_checkpoint
from vaegan.config import to_plain
from vaegan.gan.emphasis import saved_emphasis
from vaegan.gan.module import GANModule
from vaegan.gan.warm_start import Transfer, describe_transfer, named_layers
from vaegan.runtime.collectives import broadcast
from vaegan.runtime.paths import display_path
from vaegan.stages.training_runs import GANRun, VAERun
from vaegan.vae.model import VAE

BETTER_WEIGHTS = (
    "vae: GANs of natural images usually look better with the weights at the end of the VAE's "
    "training; for these, give the folder of a finished stage=vae run in vae_ckpt, or its last.ckpt"
)

# Settings of networks that can differ although all or most layers fit, and their values in
# checkpoints of earlier versions, which omit them.
COMPARED_SETTINGS = {"activation": "silu", "padding": "zeros", "skip_excitation": False}

log = logging.getLogger(__name__)


def starting_checkpoint(run: GANRun) -> tuple[Checkpoint, str]:
    """Load the checkpoint that a GAN starts from: a GAN with `init`, else a VAE.

    Returns:
        The checkpoint, and the option that gave it, as typed.

    Raises:
        ValueError: There is no such checkpoint, or it is of another stage.
    """
    if not run.init:
        return load_vae_checkpoint(run.vae_ckpt, "vae_ckpt"), f"vae_ckpt={run.vae_ckpt}"
    checkpoint = load_checkpoint(find_checkpoint(run.init, "init", ["gan"]))
    option = f"init={run.init}"
    if checkpoint.stage != "gan":
        raise ValueError(f"{option} is a VAE; to start a GAN from a VAE, use vae_ckpt={run.init}")
    if not any(name.startswith("discriminator.") for name in checkpoint.state):
        raise ValueError(
            f"{option} is an export, which has no discriminator; give the checkpoint of the run"
        )
    return checkpoint, option


def choose_vae_weights(
    run: GANRun, found: Checkpoint, is_natural: bool, earlier: Mapping[str, Any] | None
) -> tuple[GANRun, Checkpoint]:
    """Return the checkpoint of the VAE that `warm_start.vae_weights` names, and the run with it.

    Args:
        run: Settings.
        found: The checkpoint that `starting_checkpoint` found.
        is_natural: True for natural images (`ImageSource.IS_NATURAL`).
        earlier: Plain run of the GAN to resume, which continues with the same weights.

    Raises:
        ValueError: `vae_ckpt` does not contain the weights, or not those of the GAN to resume.
    """
    if run.init:
        return run, found
    given = run.warm_start.vae_weights
    choice = given or ("last" if is_natural else "best")
    if given is None and earlier is not None:
        choice = earlier["warm_start"].get("vae_weights", "best")  # as in earlier versions
    last = found.path.with_name("last.ckpt")
    is_folder = Path(run.vae_ckpt).expanduser().is_dir()
    if choice == "last" and is_folder and broadcast(last.is_file()):
        found = load_vae_checkpoint(str(last), "vae_ckpt")
    weights = {"best.ckpt": "best", "last.ckpt": "last"}.get(found.path.name)
    if given not in (None, weights):
        raise ValueError(
            f"warm_start.vae_weights={given} needs the folder of a stage=vae run with {given}.ckpt "
            f"in vae_ckpt; got {found.path}"
        )
    is_missing = choice == "last" and weights != "last"
    if is_missing and is_folder and earlier is not None:
        raise ValueError(
            f"the GAN to resume was started from the last.ckpt of its VAE, but {last} does not "
            "exist; set vae_ckpt to the folder that was used then"
        )
    log.info("vae: weights from %s", display_path(found.path))
    if is_missing and not earlier and weights == "best" and run.warm_start.generator != "none":
        log.log(logging.WARNING if is_folder else logging.INFO, BETTER_WEIGHTS)
    return replace(run, warm_start=replace(run.warm_start, vae_weights=weights)), found


def earlier_vae(run: VAERun) -> Mapping[str, Any] | None:
    """Return the plain config of the earlier VAE that `run.init` names, if any.

    Raises:
        ValueError: There is no such VAE.
    """
    return load_vae_checkpoint(run.init, "init").vae if run.init else None


def init_vae(vae: VAE, run: VAERun) -> list[Transfer]:
    """Copy the layers of the earlier VAE that `run.init` names, if any.

    Raises:
        ValueError: There is no such VAE, or `init_mismatch` is "error" and layers do not fit or
            were trained with other settings.
    """
    if not run.init:
        return []
    checkpoint = load_vae_checkpoint(run.init, "init")
    check_networks(checkpoint.path, checkpoint.vae, to_plain(run), run.init_mismatch)
    state = without_prefix(checkpoint.state, VAE_PREFIX)
    return [copy_layers(vae, state, "VAE", str(checkpoint.path), run.init_mismatch)]


def init_gan(module: GANModule, checkpoint: Checkpoint, init_mismatch: str) -> list[Transfer]:
    """Copy generator, EMA generator and discriminator of an earlier GAN.

    Raises:
        ValueError: `init_mismatch` is "error", and layers do not fit or the discriminator was
            trained with another emphasis or other settings.
    """
    check_networks(checkpoint.path, checkpoint.run, module.header["run"], init_mismatch)
    saved, current = saved_emphasis(checkpoint.run), saved_emphasis(module.header["run"])
    if saved != current and init_mismatch == "error":
        raise ValueError(
            f"the discriminator in {checkpoint.path} was trained with {saved}; set these values, "
            f"or init_mismatch=fresh to train it with {current}"
        )
    loses_noise = checkpoint.run.get("noise_inputs") and not module.header["run"].get(
        "noise_inputs"
    )
    if loses_noise and init_mismatch == "error":
        raise ValueError(
            f"the generator in {checkpoint.path} has noise inputs; set noise_inputs=true, or "
            "init_mismatch=fresh to train it without them"
        )
    networks: dict[str, nn.Module] = {
        "generator": module.generator,
        "discriminator": module.discriminator,
        "ema.module": module.ema.module,
    }
    transfers = []
    for name, network in networks.items():
        state = without_prefix(checkpoint.state, f"{name}.")
        transfers.append(copy_layers(network, state, name, str(checkpoint.path), init_mismatch))
    return transfers[:2]  # the EMA generator has the layers of the generator


def check_networks(
    path: Path, earlier: Mapping[str, Any], current: Mapping[str, Any], init_mismatch: str
) -> None:
    """Check that networks have the settings with which the weights in a checkpoint were trained.

    Args:
        path: Path of the checkpoint, for messages.
        earlier: Plain config of the earlier run.
        current: Plain config of the run.
        init_mismatch: "error" to compare the settings, "fresh" to accept all.

    Raises:
        ValueError: One of `COMPARED_SETTINGS` differs.
    """
    settings = []
    for group in ("encoder", "decoder", "discriminator"):
        before, after = earlier.get(group, {}), current.get(group, {})
        if before.get("name") != after.get("name"):
            continue  # their layers differ
        for key, default in COMPARED_SETTINGS.items():
            value = before.get(key) or default
            if key in after and (after[key] or default) != value:
                settings.append(f"{group}.{key}={str(value).lower()}")
    if settings and init_mismatch == "error":
        raise ValueError(
            f"init: the networks in {path} were trained with {' '.join(settings)}; set these "
            "values, or init_mismatch=fresh to continue with others"
        )


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries of a state dict that start with a prefix, without the prefix."""
    names = [name for name in state if name.startswith(prefix)]
    return {name.removeprefix(prefix): state[name] for name in names}


def copy_layers(
    network: nn.Module, state: Mapping[str, Tensor], name: str, source: str, init_mismatch: str
) -> Transfer:
    """Copy the layers of a state dict that fit a network.

    Args:
        network: Network with fresh weights, modified in place.
        state: State dict of the earlier network.
        name: Name of the network, for messages.
        source: Source of the state dict, for messages.
        init_mismatch: "error" to reject layers that do not fit, "fresh" to leave them as they are.

    Raises:
        ValueError: A layer has another shape or is missing, and `init_mismatch` is "error".
    """
    own = network.state_dict()
    misfits: dict[str, str] = {}  # layer: reason
    for key, value in own.items():
        if key not in state:
            misfits[key.rpartition(".")[0]] = f"{key} is not in the earlier model"
        elif state[key].shape != value.shape:
            shapes = f"{tuple(state[key].shape)} in the earlier model, {tuple(value.shape)} here"
            misfits[key.rpartition(".")[0]] = f"{key} has the shape {shapes}"
    if misfits and init_mismatch == "error":
        raise ValueError(
            f"init: layers of the {name} do not fit {source} ({len(misfits)} in total): "
            f"{'; '.join(list(misfits.values())[:3])}. Use the settings of the earlier model, or "
            "init_mismatch=fresh to train these layers from fresh weights"
        )
    fitting = {key: state[key] for key in own if key.rpartition(".")[0] not in misfits}
    network.load_state_dict(own | fitting)
    copied = [layer for layer in named_layers(network) if layer not in misfits]
    return describe_transfer(network, copied, name, source)
