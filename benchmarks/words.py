"""Measure the words of the project: python benchmarks/words.py [ROOT]

Nothing is imported or run. `ROOT` is another checkout.

riddle opening    docstring that opens with What, Whether, Where, Which or How
flagged word      archaic or literary word, or British spelling, in code, configs, README or docs
"""

import ast
import re
import sys
from pathlib import Path

FOLDERS = ("vaegan", "benchmarks", "scripts")
RIDDLES = re.compile(r"(What|Whether|Where|Which|How)\b")
ARCHAIC = (
    r"anew|afresh|shall|heed(?:s|ed)?|whoever|whosoever|thereof|thereby|therein|hereby|herein|"
    r"hence|lest|upon|whence|amid|amongst|whilst|nought|naught|yonder|behold|ere|betwixt|"
    r"mend(?:s|ed|ing)?|beside|in the place of|go on with|goes on with|cannot be had"
)
BRITISH = (
    r"initialis\w+|normalis\w+|optimis(?:e|ed|es|ing|ation)\w*|minimis\w+|maximis\w+|summaris\w+|"
    r"regularis\w+|quantis\w+|binaris\w+|visualis\w+|organis\w+|recognis\w+|synchronis\w+|"
    r"grey\w*|colour\w*|behaviour\w*|neighbour\w*|favour\w*|centre[sd]?|licence|labelled|"
    r"modelled|cancelled|travelled|catalogue|analyse[sd]?|artefacts?"
)
FLAGGED = re.compile(rf"\b(?:{ARCHAIC}|{BRITISH})\b", re.IGNORECASE)


def text_files(root: Path) -> list[Path]:
    """Return the source files, configs and documentation pages, without this list of words."""
    files = [*root.glob("*.md"), *root.glob("*.cff"), *(root / "docs").glob("*.md")]
    files += [*python_files(root), *(root / "conf").rglob("*.yaml")]
    return sorted(path for path in files if path.name != Path(__file__).name)


def python_files(root: Path) -> list[Path]:
    """Return the source files of package, benchmarks and scripts."""
    return sorted(path for name in FOLDERS for path in (root / name).rglob("*.py"))


def docstrings(root: Path) -> list[tuple[str, str]]:
    """Return place and text of every docstring of package, benchmarks and scripts."""
    found = []
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                line = getattr(node, "lineno", 1)
                found.append((f"{path.relative_to(root)}:{line}", text))
    return found


def riddle_openings(root: Path) -> list[str]:
    """Return the docstrings that open with a question word."""
    return [f"{place}: {text}" for place, text in docstrings(root) if RIDDLES.match(text)]


def flagged_words(root: Path) -> list[str]:
    """Return the flagged words with their places."""
    found = []
    for path in text_files(root):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for word in FLAGGED.findall(line):
                found.append(f"{path.relative_to(root)}:{number}: {word}")
    return found


def main(root: Path) -> None:
    """Print the figures."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    pages = {path: len(path.read_text().splitlines()) for path in (root / "docs").glob("*.md")}
    longest = max(pages, key=lambda path: pages[path])
    riddles, flagged = riddle_openings(root), flagged_words(root)
    print(f"docstrings         {len(docstrings(root))}")
    print(f"riddle openings    {len(riddles)}")
    print(f"flagged words      {len(flagged)}")
    print(f"README             {len(readme.splitlines())} lines, {len(readme.split())} words")
    print(f"pages in docs/     {len(pages)}; longest {longest.name}, {pages[longest]} lines")
    print(*riddles, *flagged, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
