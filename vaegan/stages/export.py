"""Stage export: write a trained model as safetensors and JSON for use in other programs."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.checkpoints.exports import write_export
from vaegan.checkpoints.find_checkpoint import find_checkpoint
from vaegan.runtime.paths import display_path, path_override
from vaegan.stages.run_folder import create_empty_folder
from vaegan.stages.tool_configs import ExportRun


def export(run: ExportRun, output_dir: Path) -> None:
    """Export a trained VAE or GAN as safetensors and JSON for use in other programs.

    A GAN is exported as its EMA generator and its latent distribution.

    Raises:
        ValueError: The checkpoint is missing or damaged, or the export cannot be written.
    """
    checkpoint = load_checkpoint(find_checkpoint(run.ckpt, "ckpt", ["vae", "gan"]))
    tensors = checkpoint.weights_to_export()
    folder = create_empty_folder(output_dir / "export")
    path = write_export(folder, checkpoint.describe(), tensors)
    model = f"{checkpoint.stage} from {display_path(checkpoint.path)}"
    lines = [
        f"  {model}, {len(tensors)} tensors: {display_path(path)}",
        "",
        "next commands",
        f"  python train.py stage=evaluate {path_override('ckpt', folder)}",
    ]
    if checkpoint.stage == "vae":
        lines.append(f"  python train.py stage=gan {path_override('vae_ckpt', folder)}")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print("", "Export", *lines, sep="\n")
