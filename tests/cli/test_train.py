"""Tests of the command line: messages, help, and short runs of each stage."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from tests.conftest import SMALL_PIPELINE, SMALL_VAE, TRAIN, compose
from tests.faults import run_in_process
from vaegan.stages.execute import execute


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["vae.traner.max_epochs=1"],
            "unknown key vae.traner.max_epochs .* Did you mean vae.trainer.max_epochs?",
        ),
        (["max_epochs=1"], "Did you mean vae.trainer.max_epochs or gan.trainer.max_epochs?"),
        (
            ["stage=vae", "trainer.max_epoch=1"],
            "unknown key trainer.max_epoch for stage=vae. Did you mean trainer",
        ),
        (["likelihod=gaussian"], "unknown key likelihod .* Did you mean likelihood?"),
        (
            ["likelihood=gausian"],
            "likelihood=gausian is not a known choice. Did you mean gaussian? Known choices: bern",
        ),
        (["stage=gann"], "stage=gann is not a known choice. Did you mean gan?"),
        (
            ["likelihood.scale=0.1"],
            "likelihood.scale is set, but no likelihood is selected; add .* gaussian, laplace",
        ),
        (
            ["likelihood=bernoulli", "likelihood.scale=0.1"],
            "likelihood.scale is a key of likelihood=.*, which is not selected",
        ),
        (
            ["likelihood.scael=0.1"],
            "likelihood.scael, and no likelihood is selected. Did you mean likelihood.scale",
        ),
        (["dataset=image_folder"], "dataset.root must be set"),
        (
            ["dataset=image_folder", "dataset.root=nowhere"],
            "dataset.root=.*nowhere is not a folder; set it to the folder",
        ),
        (["latent_dim=many"], "'many' .* could not be converted to Integer"),
        (["latent_dim=0"], "latent_dim must be at least 1; got 0"),
        (["vae.optimizer.lr=-1"], "vae.optimizer.lr must be positive; got -1.0"),
        (
            ["gan.loader.batch_size=65", "gan.trainer.devices=2"],
            "gan.loader.batch_size must be divisible by",
        ),
        (["+foo=1"], "unknown key foo"),
        (
            ["vae.trainer.devices=2"],
            "must be the same in both stages; trainer.devices and trainer.num_nodes set both",
        ),
        (
            ["trainer.devices=2", "gan.loader.batch_size=65"],
            "gan.loader.batch_size must be divisible by",
        ),
        (
            ["trainer.num_nodes=2"],
            "start one process per device on each node, with torchrun --nnodes=2",
        ),
        (["resume=nowhere"], "resume=nowhere does not exist"),
        (["stage=vae", "sweep_metric=val/ello"], "sweep_metric must be one of val/elbo, test/elbo"),
        (
            ["stage=vae", "objective=iwae", "sweep_metric=val/elbo"],
            "sweep_metric must be one of val/iw_bound",
        ),
        (
            ["objective.num_samples=5"],
            "objective.num_samples is a key of objective=.*, which is not selected",
        ),
        (
            ["stage=vae", "objective=iwae", "objective.num_samples=0"],
            "objective.num_samples must be at least 1; got 0",
        ),
        (
            ["stage=vae", "dataset=shapes", "objective.beta_warmup_epochs=6"],
            "objective.beta_warmup_epochs must be at most 5, the number of epochs; got 6.0",
        ),
        (
            ["dataset=shapes", "objective.beta_warmup_epochs=6"],
            "objective.beta_warmup_epochs must be at most 5, the number of epochs",
        ),
        (
            ["objective.beta_schedule=step"],
            "objective.beta_schedule must be one of constant, linear, cosine, cyclical",
        ),
        (
            ["stage=vae", "dataset=shapes", "dataset.channels=3"],
            "likelihood=bernoulli requires 1-channel images; got 3",
        ),
        (
            ["dataset=shapes", "dataset.channels=3", "gan.discriminator_warmup=0"],
            "likelihood=bernoulli requires 1-channel images",
        ),
        (
            ["likelihood=gaussian", "likelihood.scale=large"],
            "likelihood.scale must be a positive number, or one of learned",
        ),
        (
            ["stage=vae", "prior=flow", "latent_dim=1"],
            "latent_dim must be at least 2 for prior=flow",
        ),
        (
            ["stage=vae", "dataset=shapes", "prior=vamp_prior", "prior.num_pseudo_inputs=3000"],
            "prior.num_pseudo_inputs must be at most 2000, the number of training images; got 3000",
        ),
        (["stage=evaluate"], "ckpt must be the folder or the checkpoint of a stage=vae or"),
        (
            ["stage=evaluate", "ckpt=/no/such"],
            "ckpt=/no/such does not exist; give the folder of a stage=vae or",
        ),
        (["stage=evaluate", "ckpt=x", "num_samples=0"], "num_samples must be at least 1; got 0"),
        (
            ["stage=evaluate", "ckpt=x", "chunk_size=50"],
            "chunk_size must be at least batch_size=100, one latent per image",
        ),
        (
            ["stage=evaluate", "ckpt=x", "split=tset"],
            "split must be train, val or test; got 'tset'",
        ),
        (
            ["stage=evaluate", "ckpt=x", "num_images=1"],
            "num_images must be at least 2, or null; got 1",
        ),
        (
            ["dataset=shapes", "gan.trainer.limit_train_batches=0.01"],
            "gan: trainer.limit_train_batches must be large enough to keep one of the 31",
        ),
        (
            [
                "dataset=shapes",
                "gan.trainer.limit_train_batches=0.5",
                "gan.discriminator_warmup=5000",
            ],
            "less than 4800",
        ),
        (["~prior"], "prior must be set"),
        (["stage=gan"], "vae_ckpt must be the folder or the checkpoint of a stage=vae run"),
        (
            ["stage=gan", "vae_ckpt=/no/such"],
            "vae_ckpt=/no/such does not exist; give the folder of a stage=vae run",
        ),
        (["dataset.root=/no/such"], "/no/such/train-images-idx3-ubyte.gz is missing"),
        (
            ["dataset=shapes", "gan.loader.batch_size=5000"],
            "gan: loader.batch_size must be at most 2000",
        ),
        (
            ["dataset=shapes", "gan.discriminator_warmup=50000"],
            "gan: discriminator_warmup must be less than 9920",
        ),
        (
            ["dataset=shapes", "gan.discriminator_warmup=0", "feature_extractor=digits_cnn"],
            "gan: feature_extractor=digits_cnn supports only mnist.*pyramid",
        ),
        (
            ["dataset=shapes", "gan.discriminator_warmup=0", "dataset.num_test=1"],
            "gan: the number of images in the test split must be at least 2; got 1",
        ),
        (
            ["feature_extractor=digits_cnn", "feature_extractor.path=/no/such.safetensors"],
            "gan: .*/no/such.safetensors",
        ),
        (
            ["feature_extractor=inception", "feature_extractor.path=/no/such.pth"],
            "gan: feature_extractor.path=/no/such.pth does not exist; download",
        ),
        (
            ["gan.warm_start.discriminator=true", "discriminator.activation=leaky_relu"],
            "gan: discriminator cannot start .*activation=leaky_relu, .*; use the same settings",
        ),
        (
            ["gan.warm_start.discriminator=true", "discriminator.width=8"],
            "discriminator cannot start .* has widths=",
        ),
        (
            ["gan.warm_start.generator=first", "gan.warm_start.num_layers=9"],
            "num_layers must be at most 6, the number of",
        ),
        (
            ["gan.warm_start.generator=frist"],
            "gan.warm_start.generator must be one of all, first, last, none",
        ),
        (
            ["gan.gradient_accumulation=5"],
            "gan.gradient_accumulation must be a divisor of the 64 images",
        ),
        (
            ["gan.discriminator_warmup=0", "gan.discriminator_warmup_accuracy=0.8"],
            "gan.discriminator_warmup_accuracy must be null without a warm-up",
        ),
        (
            ["gan.score_every_n_images=10"],
            "gan.score_every_n_images must be at least loader.batch_size=64, or null",
        ),
        (["stage=compare"], "runs must be the folders of finished"),
        (["stage=compare", "runs=[/no/such]"], "/no/such"),
        (
            ["dataset=shapes", "gan.discriminator_warmup=0", "dataset.width=3"],
            "height and width must be at least 4; got 28 x 3",
        ),
        (
            ["dataset=shapes", "gan.trainer.accelerator=tpu"],
            "gan: trainer: .* are unavailable on this machine",
        ),
        (["hydra.run.dir=/dev/null/x"], "'/dev/null/x'.*set hydra.run.dir"),
        (
            ["-m", "stage=vae", "seed=0,1", "latent_dim=4,0"],
            "latent_dim must be at least 1; got 0.*in this job",
        ),
        (
            ["-m", "stage=vae", "likelihood=bernoulli,gausian"],
            "is not a known choice. Did you mean gaussian?.*in this job",
        ),
    ],
)
def test_invalid_command_exits_with_one_message_before_training(
    train, tmp_path, arguments, message
):
    exit_code, out, err = train(*arguments)
    assert isinstance(exit_code, str), f"no readable error: {out} {err}"
    pattern = message.replace("?", r"\?")
    assert re.search(pattern, exit_code, re.DOTALL), exit_code
    assert "Traceback" not in out + err + exit_code
    assert not list(tmp_path.rglob("*.ckpt"))


def test_errors_exit_with_status_one_and_an_optional_traceback(tmp_path):
    command = [sys.executable, str(TRAIN), "likelihood=gausian"]
    short = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert short.returncode == 1
    assert short.stderr.startswith("error: likelihood=gausian")
    assert "Traceback" not in short.stderr
    full = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"HYDRA_FULL_ERROR": "1"},
    )
    assert full.returncode == 1 and "Traceback" in full.stderr


def test_tab_completion_completes_choices(train, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "python train.py likelihood=ga")
    monkeypatch.setenv("COMP_POINT", "28")
    _, out, _ = train("-sc", "query=bash")
    assert "likelihood=gaussian" in out


@pytest.mark.slow
def test_pipeline_trains_both_stages_and_prints_the_next_commands(train, tmp_path):
    exit_code, out, _ = train(*SMALL_PIPELINE, "hydra.run.dir=run")
    assert exit_code is None
    for stage in ("vae", "gan"):
        assert f"run/{stage}/checkpoints/best.ckpt" in out
        assert (tmp_path / "run" / stage / "checkpoints" / "last.ckpt").is_file()
        assert (tmp_path / "run" / stage / "images" / "samples" / "000000.png").is_file()
    assert "tensorboard --logdir run" in out
    assert "test/elbo" in out and "test/frechet_distance" in out


@pytest.mark.slow
def test_stage_vae_prints_the_command_for_the_gan(train, tmp_path, vae_result):
    exit_code, out, _ = train(*SMALL_VAE, "trainer.max_epochs=1", "hydra.run.dir=my run")
    assert exit_code is None
    assert "python train.py stage=gan vae_ckpt='my run'" in out


@pytest.mark.slow
def test_sweep_runs_each_job_in_a_separate_folder(train, tmp_path):
    exit_code, _, _ = train("-m", "seed=0,1", *SMALL_VAE, "trainer.max_epochs=1")
    assert exit_code is None
    (sweep,) = (tmp_path / "multirun" / "vae").iterdir()
    for job in "01":
        checkpoint = sweep / job / "vae" / "checkpoints" / "best.ckpt"
        assert torch.load(checkpoint, weights_only=True)["vaegan"]["run"]["seed"] == int(job)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["discretized_logistic_mixture", "gaussian"])
@pytest.mark.parametrize(
    "networks", [["encoder=mlp", "decoder=mlp"], ["dataset.channels=3", "dataset.width=41"]]
)
def test_stage_vae_trains_with_other_networks_and_image_shapes(
    train, tmp_path, likelihood, networks
):
    overrides = SMALL_VAE
    if "mlp" in networks[0]:  # width and hidden_dim are keys of conv networks
        overrides = [word for word in SMALL_VAE if not word.startswith(("encoder", "decoder"))]
    overrides = [*overrides, *networks, f"likelihood={likelihood}"]
    overrides += ["dataset.num_train=64", "dataset.num_val=16", "dataset.num_test=16"]
    exit_code, _, err = train(*overrides, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert exit_code is None, err
    assert (tmp_path / "run" / "vae" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.slow
def test_two_processes_evaluate_each_image_once(vae_result, tmp_path):
    """Each image has its own noise, so a missing or repeated image would change the figures."""
    overrides = [
        "stage=evaluate",
        f"ckpt={vae_result[0]}",
        "num_samples=20",
        "num_images=61",
        "trainer.accelerator=cpu",
    ]
    reports = []
    for devices in (1, 2):
        run = compose(*overrides, f"trainer.devices={devices}")
        log = tmp_path / f"{devices}.log"
        run_in_process(log, lambda run=run, devices=devices: execute(run, tmp_path / str(devices)))
        assert log.read_text().count("test/nll ") == 1 and "Traceback" not in log.read_text()
        report = tmp_path / str(devices) / "evaluate" / "evaluation.json"
        reports.append(json.loads(report.read_text()))
    one, two = (report["figures"] for report in reports)
    assert reports[1]["num_images"] == 61
    assert two["test/kl"] == pytest.approx(one["test/kl"], rel=1e-5)
    assert two["test/nll"] == pytest.approx(one["test/nll"], rel=1e-6)
