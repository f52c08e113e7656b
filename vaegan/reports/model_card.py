"""Model card of an export: a README.md that model hubs display."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaegan import __version__
from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.data.dataset import ImageSource
from vaegan.gan.emphasis import saved_emphasis
from vaegan.gan.warm_start import saved_warm_start
from vaegan.reports.tables import format_number, markdown_table
from vaegan.runtime.atomic_files import read_json

TITLES = {"vae": "Variational autoencoder", "gan": "GAN started from a variational autoencoder"}
UNKNOWN_LICENSE = "unknown; check the license of the images before you publish this model"
COMPONENTS = ("likelihood", "prior", "posterior", "encoder", "decoder", "objective")
GAN_COMPONENTS = ("discriminator", "adversarial_loss", "gradient_penalty", "augmentation")


def model_card(checkpoint: Checkpoint, files: Mapping[str, str]) -> str:
    """Return the text of a model card.

    Args:
        checkpoint: The exported model.
        files: Exported files, with a description of each.
    """
    dataset = str(checkpoint.vae["dataset"]["name"])
    channels, height, width = checkpoint.image_shape
    kind = {1: "gray images", 3: "color images"}.get(channels, f"images with {channels} channels")
    sections = [
        front_matter(checkpoint.stage, dataset),
        f"# {TITLES[checkpoint.stage]} of {dataset}",
        f"Generates {kind} of {height} x {width} pixels.",
        "![Samples of the model](samples.png)" if "samples.png" in files else "",
        usage(checkpoint.stage),
        "## Model",
        "\n".join(markdown_table(["setting", "value"], model_rows(checkpoint))),
        "## Metrics",
        metrics_text(checkpoint),
        "## Data",
        f"Trained on `{dataset}`. License of the data: {license_of(dataset)}.",
        "## Training command",
        command_text(checkpoint),
        "## Files",
        "\n".join(markdown_table(["file", "content"], list(files.items()))),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def front_matter(stage: str, dataset: str) -> str:
    """Return the metadata that model hubs read."""
    tags = ["image-generation", stage]
    lines = ["library_name: vaegan", "pipeline_tag: unconditional-image-generation"]
    lines += [f"tags: [{', '.join(tags)}]", f"datasets: [{dataset}]"]
    return "\n".join(["---", *lines, "---"])


def usage(stage: str) -> str:
    """Return a section with code that uses the model."""
    lines = ["import vaegan", "", 'model = vaegan.load("FOLDER")  # the folder of these files']
    lines.append("images = model.sample(16, seed=0)  # (16, C, H, W), float32 in [0, 1]")
    if stage == "vae":
        lines.append("log_probs = model.log_prob(images)  # (16,), nats per image")
    return "\n".join(["## Use", "", "```python", *lines, "```"])


def model_rows(checkpoint: Checkpoint) -> list[list[str]]:
    """Return the names of the components, and the training so far."""
    rows = [["latent_dim", str(checkpoint.vae["latent_dim"])]]
    rows += component_rows(checkpoint.vae, COMPONENTS)
    if checkpoint.stage == "gan":
        rows += component_rows(checkpoint.run, GAN_COMPONENTS)
        rows.append(["emphasis", str(saved_emphasis(checkpoint.run))])
        rows.append(["latents", latents_text(checkpoint)])
        rows.append(["noise inputs", str(bool(checkpoint.run.get("noise_inputs"))).lower()])
    rows.append(["epochs", str(checkpoint.epoch)])
    return [*rows, ["vaegan", __version__]]


def latents_text(checkpoint: Checkpoint) -> str:
    """Return a description of the latent distribution of a GAN."""
    aggregate = checkpoint.build_latents().aggregate
    if aggregate is None:
        return "from the prior"
    if aggregate.centers is None:
        return "from a normal fitted to the latents of training images"
    bandwidth = saved_warm_start(checkpoint.run).bandwidth
    return (
        f"near the latents of {len(aggregate.centers):,} training images (bandwidth "
        f"{bandwidth}); the weights contain these latents, and the model can "
        "generate images similar to the training images"
    )


def component_rows(config: Mapping[str, Any], groups: Sequence[str]) -> list[list[str]]:
    """Return each component of a config with its settings."""
    rows = []
    for group in groups:
        settings = config.get(group)
        if isinstance(settings, Mapping):
            details = [f"{key}={value}" for key, value in settings.items() if key != "name"]
            text = str(settings.get("name"))
            rows.append([group, f"{text} ({', '.join(details)})" if details else text])
    return rows


def metrics_text(checkpoint: Checkpoint) -> str:
    """Return a table of the metrics in the run folder of a checkpoint and of real images."""
    folder = checkpoint.path.resolve().parent.parent
    try:
        result = read_json(folder / "result.json")
        rows = []
        for tag, value in sorted(result["metrics"].items()):
            real = result["real_vs_real"].get(tag)
            rows.append([tag, format_number(value), "" if real is None else format_number(real)])
    except (ValueError, KeyError, TypeError, AttributeError):  # no result, or a damaged one
        return "The metrics are unknown, because the model is not from a finished run folder."
    text = "Metrics of the best checkpoint, and for the scores of a GAN those of real images:"
    names = ["metric", "value", "real images"]
    return "\n".join([text, "", *markdown_table(names, rows, right_aligned=names[1:])])


def command_text(checkpoint: Checkpoint) -> str:
    """Return the command that trained the model, from its run folder."""
    path = checkpoint.path.resolve().parent.parent.parent / ".hydra" / "overrides.yaml"
    try:
        words: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        command = shlex.join(["python", "train.py", *map(str, words)])
    except (OSError, ValueError, TypeError, OmegaConfBaseException):
        return "Not recorded; `config.json` has all settings."
    return f"```bash\n{command}\n```"


def license_of(dataset: str) -> str:
    """Return the license of a data set."""
    source = ImageSource.choices.get(dataset)
    return getattr(source, "LICENSE", None) or UNKNOWN_LICENSE
