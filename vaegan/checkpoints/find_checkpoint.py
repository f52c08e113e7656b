"""Find the checkpoint for a path given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vaegan.checkpoints.checkpoint import Checkpoint, load_checkpoint
from vaegan.checkpoints.exports import EXPORT_FILE


def find_checkpoint(path: str, key: str, stages: Sequence[str]) -> Path:
    """Find a checkpoint file: the given file, or the best checkpoint in a run folder.

    Args:
        path: Path as typed by the user.
        key: Option that the path was given for, used in error messages.
        stages: Accepted stages; in a folder with several of them, the first one is used.

    Raises:
        ValueError: There is no checkpoint, or the path is a URL.
    """
    if "://" in path:
        raise ValueError(
            f"{key}={path}: URLs are not supported; download the file and give its path"
        )
    root = Path(path).expanduser()
    if root.is_file():
        return root
    folders = [root, root / "checkpoints", *(root / stage / "checkpoints" for stage in stages)]
    candidates = [folder / "best.ckpt" for folder in folders]
    candidates += [root / EXPORT_FILE, root / "export" / EXPORT_FILE]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
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
