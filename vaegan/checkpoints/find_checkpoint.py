"""Find the checkpoint that a path on the command line means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vaegan.checkpoints.checkpoint import Checkpoint, load_checkpoint
from vaegan.checkpoints.exports import EXPORT_FILE


def find_checkpoint(path: str, key: str, stages: Sequence[str]) -> Path:
    """Find the checkpoint file that a path means: the file, or the best one of a run folder.

    Args:
        path: As the user typed it.
        key: The option that the user typed it for.
        stages: Stages to accept; in a folder with several of them the first one wins.

    Raises:
        ValueError: There is none, or the path is a URL.
    """
    if "://" in path:
        raise ValueError(f"{key}={path}: URLs are refused; download the file and give its path")
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
        ".ckpt file or an export of it. To make one: python train.py stage=vae"
    )


def load_vae_checkpoint(path: str, key: str) -> Checkpoint:
    """Find and load a stage=vae checkpoint; for the arguments see `find_checkpoint`.

    Raises:
        ValueError: as `find_checkpoint` and `load_checkpoint`; also if it is a GAN's.
    """
    checkpoint = load_checkpoint(find_checkpoint(path, key, ["vae"]))
    if checkpoint.stage != "vae":
        raise ValueError(
            f"{key}={path} is a stage={checkpoint.stage} checkpoint; give the stage=vae one that "
            "it started from"
        )
    return checkpoint
