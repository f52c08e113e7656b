"""The layout of README.md, "How the code is laid out", held against the imports of every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    [
        "images",
        "config",
        "random",
        "files",
        "interrupts",
        "processes",
        "metrics.digits_cnn",
        "data.decoding",
        "data.mapped",
    ],
    [
        "distributions",
        "scales",
        "nets.blocks",
        "data.idx",
        "data.scanning",
        "archives",
        "exports",
        "augmentation",
        "metrics.scores",
        "comparison",
        "logs",
        "settings",
    ],
    [
        "likelihoods",
        "priors",
        "posteriors",
        "adversarial",
        "nets.encoders",
        "nets.decoders",
        "nets.discriminators",
        "data.datasets",
        "data.reading",
        "data.cache_table",
        "outcomes",
    ],
    [
        "data.batches",
        "data.shapes",
        "data.stacked",
        "data.streaming",
        "data.image_cache",
        "data.on_demand",
        "models",
    ],
    ["data.views", "data.image_folder"],
    [
        "bounds",
        "data.module",
        "pictures",
        "warm_start",
        "metrics.features",
        "metrics.train_digits_cnn",
    ],
    ["objectives", "evaluation", "checkpoints", "training", "modules.steps", "metrics.reference"],
    ["modules.scoring"],
    ["modules.vae", "modules.gan", "modules.evaluation", "callbacks", "safety", "launching"],
    ["stages.runs"],
    ["stages.summary", "stages.other_runs", "commands"],
    ["stages.folders"],
    ["stages.fitting", "stages.jobs"],
    [
        "stages.vae",
        "stages.gan",
        "stages.evaluate",
        "stages.export",
        "stages.compare",
        "stages.optimize",
        "stages.sweep",
    ],
    ["stages.pipeline"],
    ["schemas"],
]
FLOOR = {f"vaegan.{name}": floor for floor, names in enumerate(FLOORS) for name in names}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "vaegan").rglob("*.py"))
    if path.name != "__init__.py"
}
MAY_IMPORT = {
    "hydra": ("vaegan.schemas",),
    "lightning": (
        "vaegan.modules.",
        "vaegan.data.module",
        "vaegan.callbacks",
        "vaegan.logs",
        "vaegan.safety",
        "vaegan.stages.",
    ),
    "torchvision": (
        "vaegan.data.datasets",
        "vaegan.data.views",
        "vaegan.pictures",
        "vaegan.callbacks",
        "vaegan.metrics.train_digits_cnn",
    ),
    "PIL": ("vaegan.data.decoding", "vaegan.stages.compare"),
    "sqlite3": ("vaegan.data.image_cache", "vaegan.data.cache_table"),
    "filelock": ("vaegan.data.image_cache", "vaegan.stages.folders"),
    "litdata": ("vaegan.data.streaming", "vaegan.stages.optimize"),
    "kornia": ("vaegan.augmentation",),
    "matplotlib": ("vaegan.stages.compare", "vaegan.stages.sweep"),
}


def imports(path: Path, inside_functions: bool = True) -> set[str]:
    """Modules that a file imports: "vaegan.config", "lightning.pytorch"."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree)) if inside_functions else tree.body
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
    }


def test_every_file_has_a_floor():
    assert set(FILES) == set(FLOOR)


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_lower_floors(name):
    ours = {
        module
        for module in imports(FILES[name], inside_functions=False)
        if module.startswith("vaegan")
    }
    assert not {module for module in ours if FLOOR[module] >= FLOOR[name]}


@pytest.mark.parametrize("name", FILES)
def test_libraries_stay_where_they_belong(name):
    for library, places in MAY_IMPORT.items():
        if any(module.split(".")[0] == library for module in imports(FILES[name])):
            assert name.startswith(places), f"{name} imports {library}"


def test_a_typo_does_not_wait_for_lightning_and_torchvision():
    """What train.py imports before a run executes, followed to the ground."""
    seen, todo = set(), ["vaegan.schemas"]
    while todo:
        name = todo.pop()
        seen.add(name)
        todo += [
            m for m in imports(FILES[name], inside_functions=False) if m in FILES and m not in seen
        ]
    libraries = {
        m.split(".")[0] for name in seen for m in imports(FILES[name], inside_functions=False)
    }
    assert not libraries & {
        "lightning",
        "torchvision",
        "torchmetrics",
        "tensorboard",
        "rich",
        "kornia",
        "matplotlib",
        "litdata",
    }


def test_files_stay_small():
    assert not {
        name: n for name, path in FILES.items() if (n := len(path.read_text().splitlines())) > 300
    }
