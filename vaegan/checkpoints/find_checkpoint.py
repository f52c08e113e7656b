"""Find the checkpoint for a path given on the command line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from vaegan.checkpoints.checkpoint import Checkpoint, load_checkpoint
from vaegan.checkpoints.exports import EXPORT_FILE
from vaegan.runtime.last_run import find_last_checkpoint
from vaegan.runtime.paths import LAST, display_path

log = logging.getLogger(__name__)


def find_checkpoint(path: str, key: str, stages: Sequence[str]) -> Path:
    """Find a checkpoint file: the given file, or the best checkpoint in a run folder.

    Args:
        path: Path as typed by the user, or "last" for the newest checkpoint below outputs/.
        key: Option that the path was given for, used in error messages.
        stages: Accepted stages; in a folder with several of them, the first one is used.

    Raises:
        ValueError: There is no checkpoint, or the path is a URL.
    """
    if "://" in path:
        raise ValueError(
            f"{key}={path}: URLs are not supported; download the file and give its path"
        )
    if path == LAST:
        return find_last_checkpoint(key, stages)
    root = Path(path).expanduser()
    if root.is_file():
        return root
    folders = [root, root / "checkpoints", *(root / stage / "checkpoints" for stage in stages)]
    candidates = [folder / "best.ckpt" for folder in folders]
    candidates += [root / EXPORT_FILE, root / "export" / EXPORT_FILE]
    found = [candidate for candidate in candidates if candidate.is_file()]
    if found:
        if len(found) > 1 and {"vae", "gan"} <= {file.parents[1].name for file in found}:
            stage, other = stages[:2]
            log.info(
                "%s=%s has a VAE and a GAN: using the %s; for the other one, %s=%s",
                *(key, path, stage.upper(), key, display_path(root / other)),
            )
        return found[0]
    problem = "does not exist"
    if root.is_dir():
        problem = f"has no checkpoint ({' or '.join(stages)}/checkpoints/best.ckpt)"
    raise ValueError(
        f"{key}={path} {problem}; give the folder of a stage={' or stage='.join(stages)} run, its "
        ".ckpt file or an export of it. To train a VAE: python train.py stage=vae"
    )


def load_vae_checkpoint(path: str, key: str) -> Checkpoint:
    """Find and load a stage=vae checkpoint; see `find_checkpoint` for the arguments.

    Raises:
        ValueError: See `find_checkpoint` and `load_checkpoint`; also for a stage=gan checkpoint.
    """
    checkpoint = load_checkpoint(find_checkpoint(path, key, ["vae"]))
    if checkpoint.stage != "vae":
        raise ValueError(
            f"{key}={path} is a stage={checkpoint.stage} checkpoint; give the stage=vae checkpoint "
            "that it was started from"
        )
    return checkpoint
