"""Read config dataclasses from source files, without importing them.

`--help` lists every setting with its comment, without the seconds that importing torch would take.
Classes and their base classes are looked up by name, as Python would.
"""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


@dataclass(eq=False)
class Module:
    """A parsed source file."""

    name: str
    tree: ast.Module
    lines: list[str]
    names: dict[str, tuple[str, str]] = field(default_factory=dict)  # import: (module, name or "")

    @functools.cached_property
    def comments(self) -> dict[int, str]:
        """Comments by line number, without `#`."""
        readline = io.StringIO("\n".join(self.lines) + "\n").readline
        tokens = tokenize.generate_tokens(readline)
        return {t.start[0]: t.string[1:].strip() for t in tokens if t.type == tokenize.COMMENT}

    def comment_of(self, node: ast.stmt) -> str:
        """Return the comment of a statement: the lines directly above it, or at its end."""
        above: list[str] = []
        line = node.lineno - 1
        while line in self.comments and self.lines[line - 1].lstrip().startswith("#"):
            above.insert(0, self.comments[line])
            line -= 1
        return " ".join([*above, self.comments.get(node.end_lineno or node.lineno, "")]).strip()


@dataclass(frozen=True)
class ClassSource:
    """A class in a source file."""

    module: Module
    node: ast.ClassDef
    outer: ClassSource | None = None

    @property
    def summary(self) -> str:
        """First paragraph of the docstring."""
        return " ".join((ast.get_docstring(self.node) or "").split("\n\n")[0].split())

    def nested(self, name: str) -> ClassSource | None:
        """Return a class declared in this one, or None."""
        for node in self.node.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return ClassSource(self.module, node, self)
        return None

    def annotated_fields(self) -> Iterator[ast.AnnAssign]:
        """Iterate over the dataclass fields declared in the class itself."""
        for node in self.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                if "ClassVar" not in ast.unparse(node.annotation):
                    yield node


class Field(NamedTuple):
    """A field of a config dataclass."""

    name: str
    annotation: ast.expr
    default: ast.expr | None
    comment: str
    owner: ClassSource  # class that declares it


class SourceReader:
    """Classes and functions of a package, and of single modules next to it.

    Args:
        package: Folder of the package.
    """

    def __init__(self, package: Path) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            self.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)

    def add(self, name: str, path: Path) -> None:
        """Parse a module."""
        text = path.read_text(encoding="utf-8")
        module = Module(name, ast.parse(text), text.splitlines())
        for node in module.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    module.names[alias.asname or alias.name] = (node.module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    module.names[alias.asname or alias.name] = (alias.name, "")
        self.modules[name] = module

    def find(self, module: Module, name: str) -> ast.stmt | None:
        """Return the definition or the assignment of a name in a module, or None."""
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return node
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                    return node
        return None

    @functools.cache  # noqa: B019  # a reader lives as long as one command
    def resolve(self, module: Module, dotted: str) -> tuple[Module, ast.stmt] | None:
        """Return the module and the statement that define a name as seen from `module`."""
        first, _, rest = dotted.partition(".")
        node = self.find(module, first)
        if node is not None:
            return None if rest else (module, node)
        target, name = module.names.get(first, ("", ""))
        submodule = f"{target}.{name}".rstrip(".")
        if submodule in self.modules:
            return self.resolve(self.modules[submodule], rest) if rest else None
        if target in self.modules:
            return self.resolve(self.modules[target], f"{name}.{rest}".rstrip("."))
        return None

    @functools.cache  # noqa: B019
    def resolve_class(self, module: Module, dotted: str) -> ClassSource | None:
        """Return a class by its name as seen from `module`, such as `R1.Config`, or None."""
        outer, _, nested = dotted.rpartition(".")
        found = self.resolve(module, dotted)
        if found is not None and isinstance(found[1], ast.ClassDef):
            return ClassSource(found[0], found[1])
        parent = self.resolve_class(module, outer) if outer else None
        return None if parent is None else parent.nested(nested)

    def bases(self, source: ClassSource) -> list[ClassSource]:
        """Return the base classes of a class that are known here."""
        names = [ast.unparse(base) for base in source.node.bases]
        found = [self.resolve_class(source.module, name) for name in names]
        return [base for base in found if base is not None]

    @functools.cache  # noqa: B019
    def lineage(self, source: ClassSource) -> list[ClassSource]:
        """Return the base classes, in the order of their fields, and the class."""
        found: list[ClassSource] = []
        for base in reversed(self.bases(source)):
            found += [one for one in self.lineage(base) if one not in found]
        return [*found, source]

    def fields(self, source: ClassSource) -> dict[str, Field]:
        """Return the fields of a dataclass by name, inherited ones first."""
        fields: dict[str, Field] = {}
        for owner in self.lineage(source):
            for node in owner.annotated_fields():
                name = ast.unparse(node.target)
                inherited = fields[name].comment if name in fields else ""
                comment = owner.module.comment_of(node) or inherited
                fields[name] = Field(name, node.annotation, node.value, comment, owner)
        return fields

    def classes(self) -> Iterator[ClassSource]:
        """Iterate over the top-level classes of all modules."""
        for module in self.modules.values():
            for node in module.tree.body:
                if isinstance(node, ast.ClassDef):
                    yield ClassSource(module, node)
