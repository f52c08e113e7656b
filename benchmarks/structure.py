"""Print size and import statistics of the package.

    python benchmarks/structure.py [ROOT]

ROOT is the root folder of another checkout. The source files are parsed, but not imported.

tokens per line   tokens on lines of code, without comments, docstrings and blank lines
function length   lines from `def` to the end, including docstring and blank lines
import cycle      modules that import each other, directly or not, including imports in functions
upward import     import of a layer (see `LAYERS`) by a lower layer
config parameters functions outside stages/gan.py with a parameter annotated as a run config
"""

import ast
import io
import statistics
import sys
import tokenize
from pathlib import Path

# Folders and files of the package, highest layer first. A layer imports only lower layers.
LAYERS = (
    "cli",
    "sweeps",
    "stages",
    "reports",
    "inference",
    "checkpoints",
    "gan",
    "metrics",
    "vae",
    "training",
    "data",
    "networks",
    "probability",
    "runtime",
    "config",
    "images",
)
RUN_CONFIGS = {"VAERun", "GANRun", "PipelineRun", "GANTraining", "VAETraining", "GANConfig"}
MAX_COLUMNS = 100
MAX_FUNCTION_LINES = 40
LAYOUT_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name of a file; for an __init__.py, the name of its package."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files(root: Path) -> dict[str, Path]:
    """Return all files of the package by dotted module name."""
    return {module_name(path, root): path for path in sorted((root / "vaegan").rglob("*.py"))}


def imported_modules(path: Path, inside_functions: bool = True) -> set[str]:
    """Return the dotted names that a file imports; `from a import b` gives both a and a.b."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in ast.walk(tree) if inside_functions else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def import_graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Return the modules of the package that each module imports, without itself."""
    graph = {}
    for name, path in files.items():
        graph[name] = (imported_modules(path) & files.keys()) - {name, "vaegan"}
    return graph


def import_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return groups of modules that import each other, directly or indirectly."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for module in graph[todo.pop()] - seen:
                seen.add(module)
                todo.append(module)
        return seen

    reach = {name: reachable(name) for name in graph}
    groups = set()
    for name in graph:
        if name in reach[name]:
            group = sorted(other for other in reach[name] if name in reach[other])
            groups.add(tuple(group))
    return [list(group) for group in sorted(groups)]


def layer_of(module: str) -> str | None:
    """Return the layer of a module, or None for the package itself and its `__main__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


def upward_imports(graph: dict[str, set[str]]) -> list[str]:
    """Return imports of a higher layer by a lower one, and imports from or of an unknown layer."""
    height = {layer: -i for i, layer in enumerate(LAYERS)}
    found = []
    for name, modules in graph.items():
        for module in sorted(modules):
            importer, imported = layer_of(name), layer_of(module)
            if importer is None or importer == imported:
                continue
            is_known = importer in height and imported in height
            if not is_known or height[imported] > height[importer]:
                found.append(f"{name} -> {module}")
    return found


def docstring_lines(tree: ast.AST) -> set[int]:
    """Return the line numbers of all docstrings."""
    lines: set[int] = set()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def tokens_per_line(source: str) -> tuple[int, int]:
    """Return the number of tokens and the number of lines with tokens."""
    excluded = docstring_lines(ast.parse(source))
    lines: set[int] = set()
    num_tokens = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT_TOKENS and token.start[0] not in excluded:
            num_tokens += 1
            lines.add(token.start[0])
    return num_tokens, len(lines)


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return all functions and methods, including nested ones."""
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines from `def` to the end."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def takes_run_config(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """True if a parameter is annotated as a run config."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    names = [
        name.id
        for argument in arguments
        if argument.annotation is not None
        for name in ast.walk(argument.annotation)
        if isinstance(name, ast.Name)
    ]
    return bool(RUN_CONFIGS & set(names))


def report(root: Path) -> None:
    """Print all statistics of a checkout."""
    files = source_files(root)
    sources = {name: path.read_text() for name, path in files.items()}
    trees = {name: ast.parse(source) for name, source in sources.items()}
    num_lines = {name: len(source.splitlines()) for name, source in sources.items()}

    print("lines by layer")
    layers = sorted({layer_of(name) for name in files if layer_of(name)}, key=str)
    for layer in layers:
        members = [name for name in files if layer_of(name) == layer]
        num = sum(num_lines[name] for name in members)
        print(f"  {layer:<16} {len(members):>3} files {num:>6} lines")
    total = sum(num_lines.values())
    print(f"  {'all':<16} {len(files):>3} files {total:>6} lines")
    print(f"layers: {len(layers)}")

    lengths = []
    for tree in trees.values():
        lengths += [function_lines(function) for function in functions(tree)]
    lengths.sort()
    num_long = sum(length > MAX_FUNCTION_LINES for length in lengths)
    print(
        f"functions: {len(lengths)}, median {statistics.median(lengths):g} lines, "
        f"longest {lengths[-1]}, over {MAX_FUNCTION_LINES} lines: {num_long}"
    )
    counts = [tokens_per_line(source) for source in sources.values()]
    num_tokens = sum(tokens for tokens, _ in counts)
    num_code = sum(lines for _, lines in counts)
    print(f"tokens per line: {num_tokens / num_code:.1f} ({num_code} lines of code)")
    is_wide = [
        len(line) > MAX_COLUMNS
        for source in sources.values()
        for line in source.splitlines()
        if line.strip()
    ]
    print(f"lines over {MAX_COLUMNS} columns: {sum(is_wide)} ({sum(is_wide) / len(is_wide):.1%})")
    print(f"files over 300 lines: {sum(lines > 300 for lines in num_lines.values())}")

    graph = import_graph(files)
    cycles = import_cycles(graph)
    print(f"import cycles: {len(cycles)}" + "".join(f"\n  {', '.join(c)}" for c in cycles))
    upward = upward_imports(graph)
    print(f"upward imports: {len(upward)}" + "".join(f"\n  {line}" for line in upward[:20]))
    config_functions = [
        f"{name}:{function.name}"
        for name, tree in trees.items()
        for function in functions(tree)
        if not name.startswith("vaegan.stages.gan") and takes_run_config(function)
    ]
    print(f"functions outside stages/gan.py with a run config parameter: {len(config_functions)}")


if __name__ == "__main__":
    report(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
