"""Tests of METRICS against the metrics that the stages report."""

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
from vaegan.stages.sample_evaluation import MEMORIZED
from vaegan.vae.evaluation import score_images, split_kl, summarize_scores
from vaegan.vae.model import VAE
from vaegan.vae.objectives import Objective
from vaegan.vae.reconstruction import RECONSTRUCTION_SCORES

ROOT = Path(__file__).parents[2]


def logged_names(folder):
    """Return the names of the metrics that a stage has logged on val and test."""
    with (folder / "metrics.csv").open(newline="") as file:
        tags = csv.DictReader(file).fieldnames
    return {tag.partition("/")[2] for tag in tags if tag.startswith(("val/", "test/"))}


def metrics_of_stage(stage):
    return {name for name, metric in METRICS.items() if metric.stage == stage}


def test_all_reported_vae_metrics_are_in_the_table(vae_result):
    vae = VAE((1, 28, 28), compose("stage=vae", *SMALL_NETS, "likelihood=gaussian")).eval()
    target = torch.rand(4, 1, 28, 28).round()
    with torch.no_grad():
        scores = summarize_scores(score_images(vae, target, 2, 100), vae.likelihood)
        scores |= split_kl(vae.encode(target), vae.latent_prior())
    bounds = {choice.bound_name for choice in Objective.choices.values()}
    reported = logged_names(vae_result[0] / "vae")
    assert reported and reported <= metrics_of_stage("vae")
    bounds |= set(RECONSTRUCTION_SCORES)
    assert reported | set(scores) | bounds == metrics_of_stage("vae")


def test_all_reported_gan_metrics_are_in_the_table(gan_result):
    features, logits = torch.randn(2, 50, 3), torch.randn(2, 50, 4)
    images = torch.randint(256, (2, 50, 3, 8, 8), dtype=torch.uint8)
    batches = [FeatureBatch(*parts) for parts in zip(features, logits, images, strict=True)]
    reported = logged_names(gan_result[0] / "gan")
    only_in_evaluation = {MEMORIZED}
    expected = metrics_of_stage("gan") - only_in_evaluation
    assert reported | set(compute_scores(*batches)) == expected


def test_sweep_metrics_have_a_direction_and_start_with_the_default():
    assert sweep_metrics("vae") == ("nll", "elbo", "log_likelihood", "kl")
    assert sweep_metrics("gan") == ("frechet_distance", "combined_distance", "kernel_distance")
    assert all(metric.direction for metric in METRICS.values() if metric.is_sweep_metric)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_documented(name):
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any(name in page.read_text(encoding="utf-8") for page in pages)


def test_table_imports_no_slow_library():
    code = (
        "import sys, vaegan.metrics.metric_table; print({'torch', 'lightning'} & set(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stdout == "set()\n", process.stderr
