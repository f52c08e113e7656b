"""The texts of `--help`, `--help WORD`, `--version` and docs/settings.md."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from vaegan.cli.plugins import CONFIG_DIR_OPTIONS, config_dirs, find_plugins, load_plugins
from vaegan.cli.settings import Section, Setting, Settings
from vaegan.metrics.metric_table import METRICS
from vaegan.runtime.program import with_launcher

WIDTH = 100
COLUMN = 36  # where descriptions start
INTRODUCTION = """\
Train a VAE by maximizing the ELBO, then a GAN whose generator starts as the VAE's decoder.

  python train.py                                          both stages, on MNIST
  python train.py stage=vae                                the VAE alone
  python train.py stage=sample ckpt=last                   images of the newest model
  python train.py stage=evaluate ckpt=VAE_RUN              NLL, ELBO, active units of that VAE
  python train.py stage=gan vae_ckpt=VAE_RUN               a GAN that starts from it
  python train.py dataset=image_folder dataset.root=IMAGES both stages on your own images
  python train.py -m seed=0,1 stage=vae                    a sweep
  tensorboard --logdir outputs                             curves and images

  GROUP=CHOICE selects a component, KEY=VALUE changes a setting, plugins=[MODULE] adds your own.
  --help stage=gan shows one stage; --help WORD shows the settings and components with that name.
  --cfg job prints the settings of a command without running it.
  Tab completion for bash: eval "$(python train.py -sc install=bash)"
"""
PAGE = """\
# Settings

Every stage, component and setting, as `python train.py --help` shows them. This page is generated
from the source files: `python scripts/write_settings_page.py`.
"""


def introduction() -> str:
    """Return INTRODUCTION; under uv, its command for TensorBoard has the prefix `uv run`."""
    command = "tensorboard --logdir outputs"
    return INTRODUCTION.replace(command, with_launcher(command))


def settings_with_plugins(words: Sequence[str], conf: Path) -> Settings:
    """Return all settings, including those of the plugins that a command line names.

    Plugins are imported, and torch with them; the files of the package are only parsed.

    Args:
        words: The command line.
        conf: Folder of the project's configs.
    """
    if not any(word.lstrip("+").startswith(("plugins=", "experiment=")) for word in words):
        return Settings()
    plugins = find_plugins(words, conf)
    if not plugins:
        return Settings()
    load_plugins(plugins)
    from vaegan.config import GROUPS
    from vaegan.stages.stage_table import STAGES
    from vaegan.training.callback_table import CALLBACKS

    package = __name__.partition(".")[0]
    stages = {
        name: (stage.config.__module__, stage.config.__qualname__, stage.function)
        for name, stage in STAGES.items()
        if stage.config.__module__.partition(".")[0] != package
    }
    modules = {part.__module__ for base in GROUPS.values() for part in base.choices.values()}
    modules |= {module for module, _, _ in stages.values()}
    files = {name: sys.modules[name].__file__ for name in modules}
    outside = {
        name: Path(file)
        for name, file in files.items()
        if file and name.partition(".")[0] != package
    }
    settings = Settings(outside, stages)
    settings.callbacks |= CALLBACKS
    return settings


def help_text(settings: Settings, conf: Path, words: Sequence[str]) -> str:
    """Return the text of `--help`.

    Args:
        settings: All settings.
        conf: Folder of the configs.
        words: The command line without `--help`. `stage=NAME` limits the text to a stage; a word
            without `=`, to the settings and components that mention it. Other options are ignored.

    Raises:
        ValueError: There is no such stage, or no setting with that word.
    """
    stages = [word.removeprefix("stage=") for word in words if word.startswith("stage=")]
    if stages and stages[0] not in settings.stages:
        raise ValueError(f"stage={stages[0]}: known stages are {', '.join(settings.stages)}")
    stage = stages[0] if stages else None
    if filters := filter_words(words):
        return "\n".join(matching_lines(settings, stage, filters[0]))
    folders = [conf, *config_dirs(words)]
    lines = [] if stage else [introduction(), *overview_lines(settings, folders)]
    if stage:
        lines += [f"stage={stage}: {settings.stages[stage].summary}", ""]
    for section in sections_of(settings, stage):
        lines += title_lines(settings, section, stage)
        lines += setting_lines(prefixed(section, stage))
        lines.append("")
    lines += component_lines(settings, stage)
    return "\n".join(lines).rstrip()


def filter_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line that are neither settings nor options."""
    return [
        word
        for previous, word in pairwise(["", *words])
        if "=" not in word and not word.startswith("-") and previous not in CONFIG_DIR_OPTIONS
    ]


def overview_lines(settings: Settings, folders: Sequence[Path]) -> Iterator[str]:
    """Iterate over the lists of stages, experiments, metrics and callbacks."""
    yield "Stages: stage=NAME; without one, stage=pipeline"
    yield ""
    yield from entry_lines([(stage.name, stage.summary) for stage in settings.stages.values()])
    for group, title in (("experiment", "Experiments: experiment=NAME"), ("arm", "Arms: arm=NAME")):
        yield ""
        yield f"{title} (settings in conf/{group}/)"
        yield ""
        for folder in folders:
            yield from entry_lines(config_summaries(folder / group))
    yield ""
    yield "Metrics: sweep_metric=val/NAME or test/NAME"
    yield ""
    metrics = [metric for metric in METRICS.values() if metric.is_sweep_metric]
    yield from entry_lines([(metric.name, metric.description) for metric in metrics])
    yield ""
    yield "Callbacks: callbacks=[NAME]"
    yield ""
    yield from entry_lines(list(settings.callbacks.items()))
    yield ""


def component_lines(settings: Settings, stage: str | None) -> Iterator[str]:
    """Iterate over the groups that a stage has, or over all."""
    used = {name for section in sections_of(settings, stage) for name in section.groups}
    for group in settings.groups.values():
        if group.name not in used:
            continue
        yield from textwrap.wrap(f"{group.name}=CHOICE: {group.summary}", WIDTH)
        yield ""
        for choice in group.choices:
            yield from entry_lines([(choice.name, choice.summary)])
            yield from setting_lines(choice.settings, indent=6)
        yield ""


def matching_lines(settings: Settings, stage: str | None, word: str) -> list[str]:
    """Return the settings and the components whose name or description contains a word.

    Raises:
        ValueError: No key, group or choice matches the word.
    """
    lines: list[str] = []
    for section in sections_of(settings, stage):
        found = [one for one in prefixed(section, stage) if is_match(word, *one)]
        if found:
            lines += [*title_lines(settings, section, stage), *setting_lines(found), ""]
    for group in settings.groups.values():
        for choice in group.choices:
            is_named = is_match(word, group.name, choice.name)
            found = [one for one in choice.settings if is_named or is_match(word, *one)]
            if found or is_named or is_match(word, choice.summary):
                lines += entry_lines([(f"{group.name}={choice.name}", choice.summary)])
                lines += [*setting_lines(found, indent=6), ""]
    if not lines:
        raise ValueError(f"no setting or component mentions {word!r}")
    return lines[:-1]


def is_match(word: str, *texts: str) -> bool:
    """True if one of the texts contains a word, in upper or lower case."""
    return any(word.lower() in text.lower() for text in texts)


def sections_of(settings: Settings, stage: str | None) -> list[Section]:
    """Return the sections that a stage has, or all."""
    return [
        section
        for section in settings.sections
        if stage is None or stage in [name for name, _ in section.uses]
    ]


def title_lines(settings: Settings, section: Section, stage: str | None) -> list[str]:
    """Return the title of a section, with the stages that have it, and an empty line."""
    where = "" if stage is not None else stages_of(settings, section)
    title = f"{section.title.rstrip('.')} ({where})" if where else section.title
    return [*textwrap.wrap(title, WIDTH), ""]


def stages_of(settings: Settings, section: Section) -> str:
    """Return the stages that have a section, and the prefix of its keys; '' if all stages do."""
    stages = [name for name, prefix in section.uses if not prefix]
    if len(stages) == len(settings.stages):
        return ""
    places = [f"stage={name}" for name in stages]
    places += [f"{prefix}KEY in stage={name}" for name, prefix in section.uses if prefix]
    return ", ".join(places)


def prefixed(section: Section, stage: str | None) -> list[Setting]:
    """Return the settings of a section with the keys that a stage gives them."""
    prefix = next((prefix for name, prefix in section.uses if name == stage), "")
    return [one._replace(key=prefix + one.key) for one in section.settings]


def setting_lines(settings: Sequence[Setting], indent: int = 2) -> list[str]:
    """Return `key=default` and the description of each setting, wrapped."""
    return entry_lines([(f"{one.key}={one.default}", one.description) for one in settings], indent)


def entry_lines(entries: Sequence[tuple[str, str]], indent: int = 2) -> list[str]:
    """Return a list of names with descriptions, in two columns."""
    lines: list[str] = []
    for name, description in entries:
        wrapped = textwrap.wrap(description, WIDTH - COLUMN) or [""]
        head = " " * indent + name
        if len(head) > COLUMN - 2:
            lines.append(head)
        else:
            lines.append(head.ljust(COLUMN) + wrapped.pop(0))
        lines += [" " * COLUMN + line for line in wrapped]
    return [line.rstrip() for line in lines]


def config_summaries(folder: Path) -> list[tuple[str, str]]:
    """Return the name and the first comment of each config file in a folder."""
    entries = []
    for path in sorted(folder.glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
        summary = next((line for line in comments if not line.startswith("@package")), "")
        entries.append((path.stem, summary))
    return entries


def markdown_page(settings: Settings, conf: Path) -> str:
    """Return docs/settings.md."""
    lines = [*PAGE.splitlines(), "", "## Stages", ""]
    lines += table(
        ["`stage=`", "meaning"], [(f"`{s.name}`", s.summary) for s in settings.stages.values()]
    )
    for folder in ("experiment", "arm"):
        lines += ["", f"## {folder.title()}s", ""]
        summaries = [(f"`{name}`", text) for name, text in config_summaries(conf / folder)]
        lines += table([f"`{folder}=`", "meaning"], summaries)
    for section in settings.sections:
        heading, *rest = section.title.rstrip(".").split(". ")
        lines += ["", f"## {heading}", "", *(f"{sentence}.\n" for sentence in rest)]
        if where := stages_of(settings, section):
            lines += [f"In {where}.", ""]
        lines += table(["key", "default", "meaning"], setting_rows(section.settings))
    lines += ["", "## Components"]
    for group in settings.groups.values():
        lines += ["", f"### {group.name}", "", group.summary, ""]
        rows: list[tuple[str, ...]] = []
        for choice in group.choices:
            rows.append((f"**`{group.name}={choice.name}`**", "", choice.summary))
            rows += setting_rows(choice.settings)
        lines += table(["choice or key", "default", "meaning"], rows)
    return "\n".join(lines) + "\n"


def setting_rows(settings: Sequence[Setting]) -> list[tuple[str, ...]]:
    """Return the cells of a table of settings."""
    return [(f"`{one.key}`", f"`{one.default}`", one.description) for one in settings]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows
    ]
