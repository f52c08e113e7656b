"""The newest runs: `last` in place of a path, and the link outputs/latest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vaegan.runtime.paths import LAST, display_path

log = logging.getLogger(__name__)
OUTPUTS = "outputs"  # folder of all runs, in the current folder
LATEST = "latest"  # link in it to the newest run
EXPORT = "export"  # folder of an export in a run folder
DEPTHS = ("*", "*/*")  # run folders: outputs/STAGE/DATE by default, or outputs/NAME


def run_files(pattern: str) -> list[Path]:
    """Return the files below outputs/ that match a pattern in a run folder, newest last."""
    root = Path(OUTPUTS)
    files = [path for depth in DEPTHS for path in root.glob(f"{depth}/{pattern}")]
    is_linked = [root / LATEST in path.parents for path in files]
    own = [path for path, linked in zip(files, is_linked, strict=True) if not linked]
    return sorted(own, key=lambda path: path.stat().st_mtime)


def newest_best_checkpoint(stages: Sequence[str]) -> Path | None:
    """Return the newest best.ckpt of the given stages below outputs/; None if there is none."""
    files = [path for stage in stages for path in run_files(f"{stage}/checkpoints/best.ckpt")]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def find_last_checkpoint(key: str, stages: Sequence[str]) -> Path:
    """Return the newest best checkpoint of the given stages below outputs/.

    Args:
        key: Option that was set to `last`, for messages.
        stages: Accepted stages, "vae" and "gan".

    Raises:
        ValueError: There is no such checkpoint.
    """
    newest = newest_best_checkpoint(stages)
    if newest is None:
        raise ValueError(
            f"{key}={LAST}: there is no finished stage={' or stage='.join(stages)} run below "
            f"{Path(OUTPUTS).resolve()}; give the path of a run folder or a checkpoint. To train a "
            "model: python train.py"
        )
    log.info("%s=%s: %s", key, LAST, display_path(newest.parents[1]))
    return newest


def find_last_run(key: str) -> Path:
    """Return the folder of the newest training run below outputs/.

    Raises:
        ValueError: There is no training run.
    """
    # An export has a config.json too, in the folder export of a run.
    files = [path for path in run_files("config.json") if path.parent.name != EXPORT]
    if not files:
        raise ValueError(
            f"{key}={LAST}: there is no training run below {Path(OUTPUTS).resolve()}; give the "
            "path of a run folder"
        )
    folder = files[-1].parent
    print(f"{key}={LAST}: {display_path(folder)}")  # before logging is set up
    return folder


def link_latest(folder: Path) -> None:
    """Point outputs/latest to a run folder below outputs/, if the file system supports links."""
    root = Path(OUTPUTS).resolve()
    folder = folder.resolve()
    if root not in folder.parents:
        return
    link = root / LATEST
    with suppress(OSError, NotImplementedError):  # Windows allows links only to administrators
        if link.is_symlink():
            link.unlink()
        link.symlink_to(folder.relative_to(root), target_is_directory=True)
