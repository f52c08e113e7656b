"""What the README promises, held against the code."""

import importlib.util
import re
from pathlib import Path

import torch

from tests.stages.test_stages import TRAIN_TAGS, VAL_TAGS
from vaegan.config import GROUPS
from vaegan.probability.likelihoods.likelihood import Likelihood

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_likelihood_of_the_readme_works_in_a_file_of_its_own(tmp_path):
    (code,) = [
        code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "StudentT" in code
    ]
    path = tmp_path / "student_t.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("student_t", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        likelihood = Likelihood.choices["student_t"].Config().build((1, 4, 4))
        x = torch.rand(2, 1, 4, 4)
        expected = (
            torch.distributions.StudentT(5.0, torch.full_like(x, 0.5), 0.1)
            .log_prob(x)
            .sum((1, 2, 3))
        )
        torch.testing.assert_close(likelihood(torch.zeros_like(x)).log_prob(x), expected)
    finally:
        Likelihood.choices.pop("student_t", None)


def test_the_choices_that_are_named_exist():
    """Not the reverse: adding a choice takes one class in one file, and breaks no test."""
    rows = re.findall(r"^\| `(\w+)`[^|\n]*((?:\\\|[^|\n]*)*)\|(.*)\|$", README, re.MULTILINE)
    named = {group: cell for group, _, cell in rows if group in GROUPS}
    assert len(named) >= 10
    for group, cell in named.items():
        choices = re.sub(r"\(.*?\)", "", cell).split(";")[0].split(":")[0]
        for name in re.findall(r"`(\w+)`", choices):
            assert name in GROUPS[group].choices, f"{group}={name}"


def test_every_tag_is_named():
    for tags, split in ((TRAIN_TAGS, "train"), (VAL_TAGS, "val")):
        for tag in {tag for stage in tags.values() for tag in stage}:
            assert re.search(rf"`(\{{[\w,]*)?{split}[\w,]*\}}?/{tag}`", README), tag


def test_pictures_are_there_and_small():
    paths = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert paths
    for path in paths:
        assert (Path(__file__).parents[1] / path).stat().st_size < 100_000
