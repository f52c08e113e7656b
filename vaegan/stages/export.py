"""Stage export: a trained model as safetensors and JSON, which other programs can read, and this one takes back."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.checkpoints.exports import write_export
from vaegan.checkpoints.find_checkpoint import find_checkpoint
from vaegan.runtime.paths import display_path
from vaegan.stages.run_folder import new_folder
from vaegan.stages.tool_configs import ExportRun


def export(run: ExportRun, output_dir: Path) -> Path:
    """Write a VAE, or a GAN's generator with what its latents come from, and say what to type next.

    Returns:
        Path of the tensors.

    Raises:
        ValueError: There is no such checkpoint, or it is damaged, or the export cannot be written.
    """
    checkpoint = load_checkpoint(find_checkpoint(run.ckpt, "ckpt", ["vae", "gan"]))
    description, tensors = checkpoint.description(), checkpoint.trained()
    path = write_export(new_folder(output_dir / "export"), description, tensors)
    folder = display_path(path.parent)
    lines = [
        f"  {checkpoint.stage} of {display_path(checkpoint.path)}, {len(tensors)} tensors: {display_path(path)}"
    ]
    lines += ["", "next", f"  python train.py stage=evaluate ckpt={folder}"]
    lines += [f"  python train.py stage=gan vae_ckpt={folder}"] if checkpoint.stage == "vae" else []
    Console(soft_wrap=True, highlight=False, markup=False).print("", "Export", *lines, sep="\n")
    return path
