"""METRICS, and what the stages report."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.metrics.metric_table import METRICS, sweep_metrics
from vaegan.metrics.sample_scores import FeatureBatch
from vaegan.metrics.scores import compute_scores
from vaegan.vae.evaluation import score_images, split_kl, summarize_scores
from vaegan.vae.model import VAE
from vaegan.vae.objectives import Objective

ROOT = Path(__file__).parents[2]


def logged(folder):
    """Names of what a stage has logged on val and test."""
    with (folder / "metrics.csv").open(newline="") as file:
        tags = csv.DictReader(file).fieldnames
    return {tag.partition("/")[2] for tag in tags if tag.startswith(("val/", "test/"))}


def of_stage(stage):
    return {name for name, metric in METRICS.items() if metric.stage == stage}


def test_every_figure_of_a_vae_is_in_the_table(vae_result):
    vae = VAE((1, 28, 28), compose("stage=vae", *SMALL_NETS, "likelihood=gaussian")).eval()
    target = torch.rand(4, 1, 28, 28).round()
    with torch.no_grad():
        found = summarize_scores(score_images(vae, target, 2, 100), vae.likelihood)
        found |= split_kl(vae.encode(target), vae.latent_prior())
    bounds = {choice.bound_name for choice in Objective.choices.values()}
    reported = logged(vae_result[0] / "vae")
    assert reported and reported <= of_stage("vae")
    assert reported | set(found) | bounds == of_stage("vae")


def test_every_metric_of_a_gan_is_in_the_table_and_produced(gan_result):
    features, logits = torch.randn(2, 50, 3), torch.randn(2, 50, 4)
    batches = [FeatureBatch(*parts) for parts in zip(features, logits, strict=True)]
    reported = logged(gan_result[0] / "gan")
    assert reported | set(compute_scores(*batches)) == of_stage("gan")


def test_sweep_metrics_have_a_direction_and_the_default_comes_first():
    assert sweep_metrics("vae") == ("nll", "elbo", "log_likelihood", "kl")
    assert sweep_metrics("gan") == ("frechet_distance", "kernel_distance")
    assert all(metric.direction for metric in METRICS.values() if metric.is_sweep_metric)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_documented(name):
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any(name in page.read_text(encoding="utf-8") for page in pages)


def test_the_table_imports_nothing_slow():
    code = (
        "import sys, vaegan.metrics.metric_table; print({'torch', 'lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n", done.stderr
