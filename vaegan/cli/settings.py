"""Reference of all settings: stages, components and their fields, read from the source files."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vaegan.cli.source_reader import ClassSource, Field, Module, SourceReader

PACKAGE = Path(__file__).parents[1]
STAGE_TABLE = "vaegan.stages.stage_table"
CALLBACK_TABLE = "vaegan.training.callback_table"
REQUIRED = "(required)"
PATH_KEYS = (  # keys with a path, or in `runs` a list of paths
    "dataset.root",
    "dataset.cache",
    "feature_extractor.path",
    "ckpt",
    "vae_ckpt",
    "init",
    "images",
    "output",
    "folder",
    "resume",
    "runs",
    "hydra.run.dir",
    "hydra.sweep.dir",
)
LITERALS = {True: "true", False: "false", None: "null", "": "''"}


class Setting(NamedTuple):
    """A key of the command line."""

    key: str
    default: str
    description: str


class Choice(NamedTuple):
    """A component that a group can be set to."""

    name: str
    summary: str
    settings: list[Setting]
    config: ClassSource


class Group(NamedTuple):
    """A group of components."""

    name: str
    summary: str
    choices: list[Choice]


class Section(NamedTuple):
    """Settings that one config class declares.

    Attributes:
        title: Summary of the class.
        uses: Stage and prefix of the keys, for each stage that has them: ("pipeline", "vae.").
        settings: The settings, without that prefix.
        groups: Names of the component groups among them.
    """

    title: str
    uses: list[tuple[str, str]]
    settings: list[Setting]
    groups: list[str]


class Stage(NamedTuple):
    """A stage of the command line."""

    name: str
    summary: str
    config: ClassSource


class Settings:
    """All stages, component groups and settings of the package, and of plugins.

    Args:
        plugins: Files of the plugins' modules, by module name.
        plugin_stages: Stages of the plugins: name to (module, config class, function).

    Attributes:
        stages: Stages by name.
        sections: Settings by the config class that declares them.
        groups: Component groups by name.
        callbacks: `module:class` of each callback by name.
    """

    def __init__(
        self,
        plugins: Mapping[str, Path] | None = None,
        plugin_stages: Mapping[str, tuple[str, str, str]] | None = None,
    ) -> None:
        self.reader = SourceReader(PACKAGE)
        for name, path in (plugins or {}).items():
            self.reader.add(name, path)
        self.stages = {stage.name: stage for stage in self._stages(plugin_stages or {})}
        self.uses = self._uses()
        self.sections = list(self._sections())
        names = dict.fromkeys(name for section in self.sections for name in section.groups)
        self.groups = {name: self._group(name) for name in names}
        table: Any = self.reader.find(self.reader.modules[CALLBACK_TABLE], "CALLBACKS")
        self.callbacks: dict[str, str] = ast.literal_eval(table.value)

    def _stages(self, of_plugins: Mapping[str, tuple[str, str, str]]) -> Iterator[Stage]:
        table = self.reader.modules[STAGE_TABLE]
        statement: Any = self.reader.find(table, "STAGES")
        for key, call in zip(statement.value.keys, statement.value.values, strict=True):
            config, function = ast.unparse(call.args[0]), ast.literal_eval(call.args[1])
            yield self._stage(key.value, table, config, function)
        for name, (module, config, function) in of_plugins.items():
            yield self._stage(name, self.reader.modules[module], config, function)

    def _stage(self, name: str, module: Module, config: str, function: str) -> Stage:
        source = self.reader.resolve_class(module, config)
        function_module, _, function_name = function.partition(":")
        node: Any = self.reader.find(self.reader.modules[function_module], function_name)
        if source is None or node is None:
            raise ValueError(f"stage {name}: {config} or {function} is not declared in its module")
        summary = (ast.get_docstring(node) or "").split("\n\n")[0]
        return Stage(name, " ".join(summary.split()), source)

    def _uses(self) -> dict[ClassSource, list[tuple[str, str]]]:
        """Return the stages, and the prefix of the keys, of each class that declares settings."""
        uses: dict[ClassSource, list[tuple[str, str]]] = {}
        for stage in self.stages.values():
            for owner in self.reader.lineage(stage.config):
                uses.setdefault(owner, []).append((stage.name, ""))
        for stage in self.stages.values():
            for one in self.reader.fields(stage.config).values():
                nested = self.nested_class(one)
                if nested in uses:
                    uses[nested].append((stage.name, f"{one.name}."))
        return uses

    def _sections(self) -> Iterator[Section]:
        for owner, uses in self.uses.items():
            fields = self.reader.fields(owner)
            own = {name: one for name, one in fields.items() if one.owner == owner}
            settings = list(self.expand(own, ""))
            groups = [name for one in own.values() if (name := self.group_of(one)) is not None]
            if settings:
                yield Section(owner.summary, uses, settings, groups)

    def _group(self, name: str) -> Group:
        base = self.group_base(name)
        choices = []
        for source in self.reader.classes():
            config = source.nested("Config")
            if config is None or base not in self.reader.lineage(source):
                continue
            fields = self.reader.fields(config)
            name_field = fields.pop("name")
            if name_field.owner == config and name_field.default is not None:
                settings = list(self.expand(fields, f"{name}."))
                choice = literal_text(name_field.default)
                choices.append(Choice(choice, source.summary, settings, config))
        return Group(name, base.summary, sorted(choices))

    def key_owners(self, config: ClassSource, owner: str = "") -> dict[str, list[str]]:
        """Return all dotted keys of a config class, with the choices that have each of them.

        The keys of all choices of a group are included: {"prior.hidden_dim": ["prior=flow"]}. The
        list is empty for keys outside components.
        """
        owners: dict[str, list[str]] = {}
        for one in self.reader.fields(config).values():
            owners[one.name] = [owner] if owner else []
            inner = self.nested_class(one)
            nested = [] if inner is None else [(inner, owner)]
            if (group := self.group_of(one)) is not None:
                choices = self.groups[group].choices
                nested = [(choice.config, f"{group}={choice.name}") for choice in choices]
            for inner_config, inner_owner in nested:
                for key, found in self.key_owners(inner_config, inner_owner).items():
                    owners.setdefault(f"{one.name}.{key}", []).extend(found)
        return owners

    def expand(
        self, fields: dict[str, Field], prefix: str, given: dict[str, str] | None = None
    ) -> Iterator[Setting]:
        """Iterate over the settings of a config's fields, those of nested configs included.

        Args:
            fields: Fields by name.
            prefix: Prefix of the keys.
            given: Defaults that differ from those in the fields, by name.
        """
        for one in fields.values():
            nested = self.nested_class(one)
            if (group := self.group_of(one)) is not None:
                default = self.component_default(one)
                summary = one.comment or self.group_base(group).summary
                yield Setting(prefix + one.name, default, summary)
            elif nested in self.uses:
                continue  # has its own section
            elif nested is not None:
                defaults = self.factory(one)[1]
                yield from self.expand(self.reader.fields(nested), f"{prefix}{one.name}.", defaults)
            else:
                default = (given or {}).get(one.name) or self.default_text(one)
                yield Setting(prefix + one.name, default, one.comment)

    def nested_class(self, one: Field) -> ClassSource | None:
        """Return the config class in a field's type, or None."""
        for part in ast.unparse(one.annotation).strip("'\"").split("|"):
            source = self.reader.resolve_class(one.owner.module, part.strip())
            if source is not None:
                return source
        return None

    def group_of(self, one: Field) -> str | None:
        """Return the name of the group whose component a field holds, or None."""
        nested = self.nested_class(one)
        return None if nested is None or nested.outer is None else group_name(nested.outer)

    def group_base(self, group: str) -> ClassSource:
        """Return the base class of a group."""
        return next(source for source in self.reader.classes() if group_name(source) == group)

    def factory(self, one: Field) -> tuple[ClassSource | None, dict[str, str]]:
        """Return the class that `field(default_factory=...)` calls, and its arguments as text."""
        module = one.owner.module
        node: Any = one.default
        if isinstance(node, ast.Call):
            node = node.keywords[0].value
        if isinstance(node, ast.Lambda):
            node = node.body
        found = self.reader.resolve(module, ast.unparse(node)) if node is not None else None
        if found is not None and isinstance(found[1], ast.FunctionDef):
            module = found[0]
            node = next(s.value for s in found[1].body if isinstance(s, ast.Return))
        arguments: dict[str, str] = {}
        if isinstance(node, ast.Call):
            arguments = {word.arg or "": literal_text(word.value) for word in node.keywords}
            node = node.func
        return self.reader.resolve_class(module, ast.unparse(node)), arguments

    def component_default(self, one: Field) -> str:
        """Return the name of the component that a field holds by default, or null."""
        if isinstance(one.default, ast.Constant):
            return "null"
        source, _ = self.factory(one)
        if source is None:
            return REQUIRED
        return literal_text(self.reader.fields(source)["name"].default)

    def default_text(self, one: Field) -> str:
        """Return a field's default as the command line writes it."""
        node = one.default
        if isinstance(node, ast.Call):  # field(default_factory=list), or a lambda
            node = node.keywords[0].value
            node = node.body if isinstance(node, ast.Lambda) else ast.List([])
        if isinstance(node, ast.Name):
            found = self.reader.resolve(one.owner.module, node.id)
            node = getattr(found[1], "value", node) if found is not None else node
        return literal_text(node)


def group_name(source: ClassSource) -> str | None:
    """Return the name of the group that a class opens (`group="prior"`), or None."""
    for word in source.node.keywords:
        if word.arg == "group" and isinstance(word.value, ast.Constant):
            return str(word.value.value)
    return None


def literal_text(node: ast.expr | None) -> str:
    """Return a default value as the command line writes it."""
    if node is None or ast.unparse(node) == "MISSING":
        return REQUIRED
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    if isinstance(value, list | tuple):
        return f"[{','.join(str(item) for item in value)}]"
    if isinstance(value, str | bool | None):
        return LITERALS.get(value, str(value))
    return str(value)
