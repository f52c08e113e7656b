"""Stage export: write a trained model for use in other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vaegan.checkpoints.checkpoint import Checkpoint, load_checkpoint
from vaegan.checkpoints.exports import write_export
from vaegan.checkpoints.find_checkpoint import find_checkpoint
from vaegan.inference.graph_exports import check_format, make_graphs, write_graph
from vaegan.inference.load import build_model
from vaegan.reports.image_files import write_png
from vaegan.reports.model_card import model_card
from vaegan.reports.tables import print_lines
from vaegan.runtime.paths import display_path, path_override, shell_command
from vaegan.stages.run_folder import create_empty_folder
from vaegan.stages.tool_configs import ExportRun
from vaegan.training.image_grids import make_image_grid

NUM_SHOWN = 64  # samples in the model card


def export(run: ExportRun, output_dir: Path) -> None:
    """Export a trained VAE or GAN with a model card: safetensors, ONNX or torch.export.

    A GAN is exported as its EMA generator and its latent distribution, with the VAE.

    Raises:
        ValueError: The checkpoint is missing or damaged, a package is missing, or the export cannot
            be written or differs from the model.
    """
    check_format(run.format)
    checkpoint = load_checkpoint(find_checkpoint(run.ckpt, "ckpt", ["vae", "gan"]))
    tensors = checkpoint.weights_to_export()
    folder = create_empty_folder(output_dir / "export")
    if run.format == "safetensors":
        path = write_export(folder, checkpoint.describe(), tensors)
        files = {
            path.name: f"{len(tensors)} tensors",
            "config.json": "settings, shapes of the tensors and the checksum",
        }
        lines = [f"{len(tensors)} tensors: {display_path(path)}"]
    else:
        files = write_graphs(checkpoint, run.format, folder)
        lines = [f"{display_path(folder / name)}: {text}" for name, text in files.items()]
    write_card(checkpoint, files, folder)
    model = f"{checkpoint.stage} from {display_path(checkpoint.path)}"
    commands = []
    if run.format == "safetensors":
        commands = next_commands(checkpoint, folder, run.plugins)
    print_lines("", "Export", f"  {model}", *(f"  {line}" for line in lines), *commands)


def write_graphs(checkpoint: Checkpoint, file_format: str, folder: Path) -> dict[str, str]:
    """Write the networks of a model; return a description of each file."""
    files = {}
    for graph in make_graphs(checkpoint):
        difference = write_graph(graph, file_format, folder)
        sizes = f"{graph.input_name} {tuple(graph.inputs.shape[1:])} to "
        sizes += f"{', '.join(graph.output_names)}, any batch size; largest difference from "
        files[f"{graph.name}.{file_format}"] = f"{sizes}PyTorch {difference:.1e}"
    return files


def write_card(checkpoint: Checkpoint, files: dict[str, str], folder: Path) -> None:
    """Write README.md with a grid of samples. The grid is omitted if image files cannot show it."""
    if checkpoint.image_shape[0] in (1, 3):
        images = build_model(checkpoint).sample(NUM_SHOWN)
        write_png(make_image_grid(images), folder / "samples.png")
        files = files | {"samples.png": f"samples with the seeds 0 to {NUM_SHOWN - 1}"}
    (folder / "README.md").write_text(model_card(checkpoint, files), encoding="utf-8")


def next_commands(checkpoint: Checkpoint, folder: Path, plugins: Sequence[str]) -> list[str]:
    """Return the lines that suggest what to do with an export."""
    commands = [f"python train.py stage=evaluate {path_override('ckpt', folder)}"]
    if checkpoint.stage == "vae":
        commands.append(f"python train.py stage=gan {path_override('vae_ckpt', folder)}")
    return ["", "next commands", *(f"  {shell_command(command, plugins)}" for command in commands)]
