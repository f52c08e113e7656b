"""The layout of the package: which folder may import which, and limits on files and functions."""

import ast
import re
from pathlib import Path

import pytest

from benchmarks import structure

ROOT = Path(__file__).parents[1]
FILES = structure.source_files(ROOT)
GRAPH = structure.import_graph(FILES)
MAX_LINES = 300
# Libraries that only some parts know.
LIBRARIES = {
    "hydra": ("cli",),
    "lightning": ("stages", "gan", "vae", "training", "data.datamodule"),
    "torchvision": ("data.idx", "data.crops", "training.image_grids"),
    "PIL": ("data.images.decoding", "reports.figures"),
    "filelock": ("data.images", "stages.run_folder"),
    "litdata": ("data.streaming", "stages.pack"),
    "kornia": ("gan.augmentation",),
    "matplotlib": ("reports", "sweeps.summary"),
}
SLOW_LIBRARIES = {
    "lightning",
    "torchvision",
    "torchmetrics",
    "tensorboard",
    "rich",
    "kornia",
    "matplotlib",
    "litdata",
}


def libraries(name, inside_functions=True):
    modules = structure.imported_modules(FILES[name], inside_functions)
    return {module.split(".")[0] for module in modules}


def test_the_package_holds_the_layers_and_nothing_else():
    entries = {path.stem for path in (ROOT / "vaegan").iterdir() if path.name != "__pycache__"}
    assert entries - {"__init__"} == set(structure.LAYERS)


def test_a_layer_imports_only_layers_below_it():
    assert structure.upward_imports(GRAPH) == []


def test_no_files_import_each_other():
    assert structure.import_cycles(GRAPH) == []


def test_the_checks_see_imports_inside_functions(tmp_path):
    for name, body in {
        "low": "def f():\n    from vaegan import high\n",
        "high": "import vaegan.low\n",
    }.items():
        (tmp_path / "vaegan").mkdir(exist_ok=True)
        (tmp_path / "vaegan" / f"{name}.py").write_text(body)
    graph = structure.import_graph(structure.source_files(tmp_path))
    assert structure.import_cycles(graph) == [["vaegan.high", "vaegan.low"]]
    assert "vaegan.low -> vaegan.high" in structure.upward_imports(graph)


def test_the_design_page_shows_the_same_layers():
    text = (ROOT / "docs" / "design.md").read_text()
    block = re.search(r"```\nvaegan/\n(.*?)```", text, re.DOTALL)[1]
    shown = [re.match(r"  (\w+)", line)[1] for line in block.splitlines() if line[2:3].strip()]
    assert shown == list(structure.LAYERS)


@pytest.mark.parametrize("name", FILES)
def test_libraries_stay_where_they_belong(name):
    place = name.removeprefix("vaegan.")
    for library in libraries(name) & LIBRARIES.keys():
        is_allowed = any(f"{place}.".startswith(f"{part}.") for part in LIBRARIES[library])
        assert is_allowed, f"{name} imports {library}"


def test_a_typo_does_not_wait_for_lightning_and_torchvision():
    """No slow library is imported before a run starts."""
    seen, todo = set(), ["vaegan.cli.main"]
    while todo:
        name = todo.pop()
        seen.add(name)
        modules = structure.imported_modules(FILES[name], inside_functions=False)
        packages = {module.rpartition(".")[0] for module in modules}
        todo += [module for module in modules | packages if module in FILES and module not in seen]
    found = {name: libraries(name, inside_functions=False) & SLOW_LIBRARIES for name in seen}
    assert not {name: slow for name, slow in found.items() if slow}


def test_files_stay_small():
    sizes = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert not {name: size for name, size in sizes.items() if size > MAX_LINES}


def test_functions_stay_small():
    long = {}
    for name, path in FILES.items():
        for function in structure.functions(ast.parse(path.read_text())):
            length = structure.function_lines(function)
            if length > structure.MAX_FUNCTION_LINES:
                long[f"{name}.{function.name}"] = length
    assert not long


def test_modules_have_names_of_their_own():
    """No two files have the same name, unless they are the same thing in two stages."""
    paths = {}
    for path in FILES.values():
        if path.name != "__init__.py":
            paths.setdefault(path.stem, []).append(path.parent.name)
    doubles = {stem: folders for stem, folders in paths.items() if len(folders) > 1}
    assert all(set(folders) <= {"vae", "gan"} for folders in doubles.values()), doubles
