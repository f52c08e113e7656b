"""Tests of the package structure: import order of the layers, sizes of files and functions."""

import ast
import re
from pathlib import Path

import pytest

from benchmarks import structure

ROOT = Path(__file__).parents[1]
FILES = structure.source_files(ROOT)
GRAPH = structure.import_graph(FILES)
MAX_LINES = 300
# Modules that may import a library.
LIBRARIES = {
    "hydra": ("cli",),
    "lightning": ("stages", "gan", "vae", "training", "data.datamodule"),
    "torchvision": (
        *("data.idx", "data.torchvision_source", "data.crops"),
        *("training.image_grids", "metrics.pretrained_extractors"),
    ),
    "PIL": (
        *("data.images.decoding", "data.images.pixel_formats", "reports.figures"),
        *("reports.image_files", "inference.image_input"),
    ),
    "filelock": ("data.images", "stages.folder_access"),
    "litdata": ("data.streaming", "stages.pack"),
    "matplotlib": ("reports", "sweeps.summary"),
}
SLOW_LIBRARIES = {
    "lightning",
    "torchvision",
    "torchmetrics",
    "tensorboard",
    "rich",
    "matplotlib",
    "litdata",
}


def libraries(name, inside_functions=True):
    """Return the top-level names of the modules that a file imports."""
    modules = structure.imported_modules(FILES[name], inside_functions)
    return {module.split(".")[0] for module in modules}


def test_package_contains_only_the_layers():
    entries = {path.stem for path in (ROOT / "vaegan").iterdir() if path.name != "__pycache__"}
    assert entries - {"__init__", "__main__", "py"} == set(structure.LAYERS)


def test_a_layer_imports_only_layers_below_it():
    assert structure.upward_imports(GRAPH) == []


def test_there_are_no_import_cycles():
    assert structure.import_cycles(GRAPH) == []


def test_imports_inside_functions_are_checked(tmp_path):
    for name, body in {
        "low": "def f():\n    from vaegan import high\n",
        "high": "import vaegan.low\n",
    }.items():
        (tmp_path / "vaegan").mkdir(exist_ok=True)
        (tmp_path / "vaegan" / f"{name}.py").write_text(body)
    graph = structure.import_graph(structure.source_files(tmp_path))
    assert structure.import_cycles(graph) == [["vaegan.high", "vaegan.low"]]
    assert "vaegan.low -> vaegan.high" in structure.upward_imports(graph)


def test_design_page_lists_the_layers_in_order():
    text = (ROOT / "docs" / "design.md").read_text()
    block = re.search(r"```\nvaegan/\n(.*?)```", text, re.DOTALL)[1]
    shown = [re.match(r"  (\w+)", line)[1] for line in block.splitlines() if line[2:3].strip()]
    assert shown == list(structure.LAYERS)


@pytest.mark.parametrize("name", FILES)
def test_libraries_are_imported_only_by_the_listed_modules(name):
    module = name.removeprefix("vaegan.")
    for library in libraries(name) & LIBRARIES.keys():
        is_allowed = any(f"{module}.".startswith(f"{part}.") for part in LIBRARIES[library])
        assert is_allowed, f"{name} imports {library}"


def test_command_line_does_not_import_slow_libraries():
    """An error in the command is reported before Lightning or torchvision is imported."""
    seen, pending = set(), ["vaegan.cli.hydra_app"]
    while pending:
        name = pending.pop()
        seen.add(name)
        modules = structure.imported_modules(FILES[name], inside_functions=False)
        packages = {module.rpartition(".")[0] for module in modules}
        imported = (modules | packages) & FILES.keys()
        pending += imported - seen
    slow = {name: libraries(name, inside_functions=False) & SLOW_LIBRARIES for name in seen}
    assert not {name: found for name, found in slow.items() if found}


def test_files_have_at_most_300_lines():
    sizes = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert not {name: size for name, size in sizes.items() if size > MAX_LINES}


def test_functions_have_at_most_40_lines():
    too_long = {}
    for name, path in FILES.items():
        for function in structure.functions(ast.parse(path.read_text())):
            length = structure.function_lines(function)
            if length > structure.MAX_FUNCTION_LINES:
                too_long[f"{name}.{function.name}"] = length
    assert not too_long


def test_file_names_are_unique():
    """Only files with the same role in `vae` and `gan` share a name."""
    folders_by_stem = {}
    for path in FILES.values():
        if path.name != "__init__.py":
            folders_by_stem.setdefault(path.stem, []).append(path.parent.name)
    shared = {stem: folders for stem, folders in folders_by_stem.items() if len(folders) > 1}
    assert all(set(folders) <= {"vae", "gan"} for folders in shared.values()), shared
