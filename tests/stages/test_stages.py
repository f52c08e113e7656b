"""Complete runs of all stages on synthetic images, checked by their outputs."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import SMALL_GAN, SMALL_PIPELINE, SMALL_VAE, compose
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.data.shapes import Shapes
from vaegan.images import to_float
from vaegan.stages import evaluate
from vaegan.stages.pipeline import check_gan
from vaegan.stages.run_folder import create_empty_folder
from vaegan.stages.stage_table import run_stage
from vaegan.stages.vae import report_collapse
from vaegan.training.devices import set_up_devices
from vaegan.training.fit import flatten
from vaegan.training.trainer_config import TrainerConfig
from vaegan.vae.evaluation import score_images, summarize_scores
from vaegan.vae.objectives import ElboObjective

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
IMAGE_GRIDS = ("samples", "reconstructions", "interpolation")
TRAIN_TAGS = {
    "vae": {"elbo", "log_likelihood", "kl", "loss", "beta", "grad_norm", "lr"},
    "gan": {
        "d_loss",
        "d_real",
        "d_fake",
        "d_accuracy",
        "d_grad_norm",
        "d_lr",
        "g_loss",
        "g_grad_norm",
        "g_lr",
    },
}
EVALUATION_METRICS = {
    "nll",
    "nll_standard_error",
    "elbo",
    "log_likelihood",
    "kl",
    "bits_per_dim",
    "active_units",
}
EVALUATION_METRICS |= {
    "aggregate_mean_max",
    "aggregate_std_min",
    "aggregate_std_max",
    "mutual_information",
    "marginal_kl",
    "reconstruction_psnr",
    "reconstruction_ssim",
}
SAMPLE_SCORES = {"frechet_distance", "combined_distance", "kernel_distance", "sliced_wasserstein"}
SAMPLE_SCORES |= {"local_contrast_distance", "border_contrast_distance", "pattern_repetition"}
SAMPLE_SCORES |= {"precision", "recall", "density", "coverage"}
VAL_TAGS = {"vae": {"elbo", "log_likelihood", "kl"}, "gan": SAMPLE_SCORES}


@pytest.fixture(params=["vae", "gan"])
def finished(request, vae_result, gan_result):
    """Return the folder and the result of a finished run of each stage."""
    return {"vae": vae_result, "gan": gan_result}[request.param]


def test_run_folder_contains_checkpoints_metrics_and_images(finished):
    _, result = finished
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*")}
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv"} <= names
    assert {f"images/{name}/{step:06d}.png" for name in IMAGE_GRIDS for step in (0, 4, 8)} <= names
    assert result.checkpoint == result.folder / "checkpoints" / "best.ckpt"


def test_tensorboard_has_every_tag_and_counts_batches(finished):
    _, result = finished
    stage = result.folder.name
    events = EventAccumulator(
        str(result.folder), {"images": 0, "scalars": 0, "tensors": 0}
    ).Reload()
    scalars = {f"train/{tag}" for tag in TRAIN_TAGS[stage]} | {
        f"val/{tag}" for tag in VAL_TAGS[stage]
    }
    assert scalars | {f"test/{tag}" for tag in VAL_TAGS[stage]} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == set(IMAGE_GRIDS)
    assert "config/text_summary" in events.Tags()["tensors"]
    first = "train/elbo" if stage == "vae" else "train/d_loss"
    assert [event.step for event in events.Scalars(first)] == list(range(8))
    assert [event.step for event in events.Images("samples")] == (
        [0, 4, 8] if stage == "vae" else [0, 2, 4, 6, 8]
    )
    assert events.Scalars("val/" + ("elbo" if stage == "vae" else "frechet_distance"))[0].step == 0


def test_metrics_csv_contains_the_final_metrics(finished):
    _, result = finished
    rows = list(csv.DictReader((result.folder / "metrics.csv").read_text().splitlines()))
    for tag, value in result.metrics.items():
        assert any(row[tag] and float(row[tag]) == pytest.approx(value) for row in rows), tag


def test_best_checkpoint_has_the_best_metric(finished):
    _, result = finished
    tag, choose = (
        ("val/elbo", max) if result.folder.name == "vae" else ("val/combined_distance", min)
    )
    rows = list(csv.DictReader((result.folder / "metrics.csv").read_text().splitlines()))
    trained = [
        (float(row[tag]), int(row["step"]) + 1) for row in rows if row[tag] and int(row["step"]) > 0
    ]
    best, step = choose(trained)
    assert result.metrics[tag] == pytest.approx(best)
    assert torch.load(result.checkpoint, weights_only=True)["global_step"] == step
    assert (
        torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        == 8
    )


def test_first_gan_image_grids_equal_those_of_its_vae(vae_result, gan_result):
    step = torch.load(vae_result[1].checkpoint, weights_only=True)["global_step"]
    vae_images, gan_images = (
        vae_result[1].folder / "images",
        gan_result[1].folder / "images",
    )
    for name in IMAGE_GRIDS:
        expected = (vae_images / name / f"{step:06d}.png").read_bytes()
        assert (gan_images / name / "000000.png").read_bytes() == expected
        assert (gan_images / name / "000008.png").read_bytes() != expected


def test_runs_are_reproducible(finished, vae_result, tmp_path):
    torch.manual_seed(99)
    stage = finished[1].folder.name
    command = SMALL_VAE if stage == "vae" else [*SMALL_GAN, f"vae_ckpt={vae_result[0]}"]
    again = run_stage(compose(*command), tmp_path)
    assert again.metrics == finished[1].metrics
    first, second = (load_checkpoint(result.checkpoint).state for result in (finished[1], again))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_test_metrics_are_those_of_the_best_checkpoint(tmp_path):
    """With a learning rate that is far too high, the best checkpoint is not the last one."""
    settings = [
        "optimizer.lr=2",
        "optimizer.lr_warmup=0.5",
        "optimizer.lr_final=1",
        "trainer.max_epochs=6",
    ]
    settings += ["likelihood=gaussian", "likelihood.scale=0.5", "likelihood.dequantize=false"]
    result = run_stage(compose(*SMALL_VAE, *settings), tmp_path)
    steps = [
        torch.load(result.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    ]
    assert steps[0] < steps[1]
    vae = load_checkpoint(result.checkpoint).build_vae()
    source = compose(*SMALL_VAE).dataset.build()
    with torch.no_grad():
        expected = (
            ElboObjective.Config()
            .build()(vae, to_float(source.split("test").images), 1.0)
            .bound.mean()
        )
    # with other posterior samples; the last checkpoint differs by far more
    assert result.metrics["test/elbo"] == pytest.approx(expected.item(), rel=1e-3)


def test_different_seeds_give_different_results(vae_result, tmp_path):
    assert run_stage(compose(*SMALL_VAE, "seed=1"), tmp_path).metrics != vae_result[1].metrics


def test_cold_start_trains_the_same_architecture_from_new_weights(vae_result, gan_result, tmp_path):
    cold = run_stage(
        compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", "warm_start.generator=none"), tmp_path
    )
    warm_start, cold_start = (
        (result.folder / "images" / "samples" / "000000.png").read_bytes()
        for result in (gan_result[1], cold)
    )
    assert warm_start != cold_start
    states = [load_checkpoint(result.checkpoint).state for result in (gan_result[1], cold)]
    assert [(key, value.shape) for key, value in states[0].items()] == [
        (key, value.shape) for key, value in states[1].items()
    ]


def test_gan_uses_the_data_set_of_its_vae_by_default(vae_result, gan_result):
    assert load_checkpoint(gan_result[1].checkpoint).run["dataset"] is None
    assert load_checkpoint(gan_result[1].checkpoint).vae["dataset"]["name"] == "shapes"


@pytest.mark.parametrize(
    "words, message",
    [
        (["dataset=shapes", "dataset.channels=3"], r"shapes has \(3, 28, 28\); use the settings"),
        (["dataset=cifar10", "dataset.root=x"], r"cifar10 has \(3, 32, 32\); omit dataset to use"),
    ],
)
def test_images_of_another_shape_are_rejected(vae_result, tmp_path, words, message):
    run = compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", *words)
    with pytest.raises(ValueError, match=rf"images of shape \(1, 28, 28\).*but dataset={message}"):
        run_stage(run, tmp_path)
    assert not (tmp_path / "gan").exists()


def test_finished_run_is_not_overwritten(vae_result):
    with pytest.raises(
        ValueError, match="already contains a run and will not be overwritten. Resume it"
    ):
        run_stage(compose(*SMALL_VAE), vae_result[0])


def test_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot create the folder .*; set hydra.run.dir"):
        create_empty_folder(tmp_path / "file" / "vae")


def test_unavailable_devices_are_reported():
    with pytest.raises(
        ValueError, match="trainer: .*'accelerator': 'tpu'.* unavailable on this machine"
    ):
        set_up_devices(TrainerConfig(accelerator="tpu"))


def test_early_stopping_stops_a_run_without_improvement(tmp_path):
    run = compose(
        *SMALL_VAE, "trainer.max_epochs=6", "early_stopping_patience=1", "optimizer.lr=1e-30"
    )
    run.objective.beta_warmup_epochs = 0.0
    result = run_stage(run, tmp_path)
    last = torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] < 6 * 4


def test_early_stopping_continues_a_run_that_improves(tmp_path):
    result = run_stage(
        compose(*SMALL_VAE, "trainer.max_epochs=3", "early_stopping_patience=1"), tmp_path
    )
    assert (
        torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        == 3 * 4
    )


def test_flatten_joins_nested_keys_with_dots():
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}


SMALL_EVALUATION = ["stage=evaluate", "num_samples=20", "batch_size=10", "chunk_size=100"]
SMALL_EVALUATION += ["trainer.enable_progress_bar=false", "num_draws=2"]


def test_evaluation_json_has_null_for_a_metric_that_is_not_finite(
    vae_result, tmp_path, monkeypatch
):
    """JSON has no NaN; the PSNR is NaN if the mean of the likelihood is not defined."""
    scores = {"elbo": -1.0, "reconstruction_psnr": math.nan}
    details = {"num_samples": 20, "target_seed": 0, "kl": "closed form"}
    monkeypatch.setattr(evaluate, "evaluate_vae", lambda *args: (scores, details))
    settings = [f"ckpt={vae_result[0]}", "num_draws=0"]
    result = run_stage(compose(*SMALL_EVALUATION, *settings), tmp_path)
    assert math.isnan(result.metrics["test/reconstruction_psnr"])
    report = json.loads((tmp_path / "evaluate" / "evaluation.json").read_text())
    assert report["figures"] == {"test/elbo": -1.0, "test/reconstruction_psnr": None}


def test_evaluation_writes_metrics_to_all_outputs(vae_result, tmp_path, capsys):
    result = run_stage(
        compose(*SMALL_EVALUATION, f"ckpt={vae_result[0]}", "target_seed=4"), tmp_path
    )
    report = json.loads((tmp_path / "evaluate" / "evaluation.json").read_text())
    assert report["figures"] == result.metrics
    scores = {f"test/{name}" for name in (*SAMPLE_SCORES, "memorized_fraction")}
    names = EVALUATION_METRICS - {"bits_per_dim"}
    assert {f"test/{name}" for name in names} | scores == result.metrics.keys()
    assert report["real_vs_real"].keys() == scores
    assert report["standard_errors"].keys() == scores - {"test/memorized_fraction"}
    assert report["checkpoint"] == str(vae_result[1].checkpoint) and report["epoch"] == 2
    settings = {
        "dataset": "shapes",
        "split": "test",
        "num_images": 64,
        "num_samples": 20,
        "target_seed": 4,
    }
    assert settings.items() <= report.items() and report["kl"] == "closed form"
    out = capsys.readouterr().out
    for tag, value in result.metrics.items():
        assert tag in out and f"{value:.4f}" in out
    assert (
        "64 test images of shapes, importance samples per image: 20" in out
        and "target_seed=4; KL: closed form" in out
    )
    events = [
        EventAccumulator(str(path)).Reload() for path in (tmp_path / "evaluate").glob("events*")
    ]
    assert any("test/nll" in each.Tags()["scalars"] for each in events)


def select(monkeypatch, num_available, *words, stage="vae"):
    """Return the labels 0, 1, ... of the images that an evaluation uses, and its sample number."""
    from vaegan.data.dataset import Split
    from vaegan.stages import evaluate

    monkeypatch.setattr(evaluate, "QUICK_IMAGES", 4)
    run = compose("stage=evaluate", "ckpt=x", *words)
    split = Split(torch.zeros(num_available, 1, 2, 2), torch.arange(num_available))
    return evaluate.select_images(split, run, stage).labels.tolist(), run.samples_per_image()


def test_vae_evaluation_is_quick_by_default_and_full_on_request(monkeypatch):
    assert select(monkeypatch, 10) == ([0, 2, 5, 7], 250)
    assert select(monkeypatch, 3) == ([0, 1, 2], 250)
    assert select(monkeypatch, 10, "full=true") == (list(range(10)), 1000)
    assert select(monkeypatch, 10, "num_images=3", "num_samples=7") == ([0, 1, 2], 7)
    assert select(monkeypatch, 10, "full=true", "num_samples=7") == (list(range(10)), 7)


def test_gan_evaluation_uses_all_images(monkeypatch):
    assert select(monkeypatch, 10, stage="gan")[0] == list(range(10))


def test_quick_evaluation_says_so(vae_result, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vaegan.stages.evaluate.QUICK_IMAGES", 32)
    run_stage(compose(*SMALL_EVALUATION, f"ckpt={vae_result[0]}"), tmp_path)
    out = capsys.readouterr().out
    assert "32 of 64 test images of shapes, importance samples per image: 20" in out
    assert "full=true scores all images with 1,000 samples each" in out
    report = json.loads((tmp_path / "evaluate" / "evaluation.json").read_text())
    assert (report["num_images"], report["num_available"]) == (32, 64)


def test_evaluation_metrics_equal_directly_computed_scores(tmp_path):
    """With wide noise, the posterior is close to q(z|x), so estimates of log p(x) vary little."""
    wide = ["likelihood=gaussian", "likelihood.scale=0.5"]
    trained = run_stage(compose(*SMALL_VAE, *wide), tmp_path)
    result = run_stage(
        compose(*SMALL_EVALUATION, f"ckpt={tmp_path}", "num_samples=400"), tmp_path / "evaluation"
    )
    vae = load_checkpoint(trained.checkpoint).build_vae()
    images = to_float(compose(*SMALL_VAE).dataset.build().split("test").images)
    with torch.no_grad():
        scores = score_images(vae, vae.likelihood.target(images, 0), 400, 2000)
    expected = summarize_scores(scores, vae.likelihood)
    for name, tolerance in (("nll", 0.3), ("elbo", 0.3), ("kl", 1e-3), ("active_units", 0)):
        assert result.metrics[f"test/{name}"] == pytest.approx(expected[name], abs=tolerance), name
    assert result.metrics["test/nll"] < -result.metrics["test/elbo"]


def test_evaluation_is_reproducible_on_other_splits_and_fewer_images(vae_result, tmp_path):
    command = [*SMALL_EVALUATION, f"ckpt={vae_result[1].checkpoint}", "split=val", "num_images=30"]
    command += ["num_draws=0"]
    first, again = (run_stage(compose(*command), tmp_path / name) for name in "ab")
    assert first.metrics == again.metrics and set(first.metrics) == {
        f"val/{name}" for name in EVALUATION_METRICS - {"bits_per_dim"}
    }
    assert (
        json.loads((tmp_path / "a" / "evaluate" / "evaluation.json").read_text())["num_images"]
        == 30
    )
    other = run_stage(compose(*command, "target_seed=1"), tmp_path / "c")
    assert other.metrics["val/nll"] != first.metrics["val/nll"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["num_images=65"],
            "num_images must be at most 64, the number of images in the split, or null; got 65",
        ),
        (["dataset=shapes", "dataset.width=20"], r"but dataset=shapes has \(1, 28, 20\)"),
    ],
)
def test_vae_evaluation_with_invalid_data_is_rejected(vae_result, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        run_stage(compose(*SMALL_EVALUATION, f"ckpt={vae_result[0]}", *overrides), tmp_path)
    assert not list(tmp_path.iterdir())


def test_non_finite_weights_are_rejected(vae_result, tmp_path):
    content = torch.load(vae_result[1].checkpoint, weights_only=True)
    next(iter(content["state_dict"].values())).fill_(torch.nan)
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(
        ValueError, match="nan.ckpt contains weights that are not finite .*: training diverged"
    ):
        run_stage(compose(*SMALL_EVALUATION, f"ckpt={tmp_path / 'nan.ckpt'}"), tmp_path)


@pytest.mark.parametrize("batch_size", [500, 7])
def test_gan_evaluation_equals_its_test_metrics(gan_result, tmp_path, capsys, batch_size):
    """The evaluation uses the latents of the test after training, whatever the batch size."""
    settings = ["chunk_size=500", f"batch_size={batch_size}", "num_draws=4", "num_train_images=0"]
    result = run_stage(compose(*SMALL_EVALUATION, *settings, f"ckpt={gan_result[0]}"), tmp_path)
    expected = {
        tag: value for tag, value in gan_result[1].metrics.items() if tag.startswith("test/")
    }
    assert result.metrics == pytest.approx(expected, rel=1e-4)
    assert result.tag == "test/combined_distance" == next(iter(result.metrics))
    report = json.loads((tmp_path / "evaluate" / "evaluation.json").read_text())
    assert report["feature_extractor"] == "vae_encoder" and report["num_images"] == 64
    assert report["real_vs_real"].keys() == result.metrics.keys()
    assert report["standard_errors"].keys() == result.metrics.keys()
    assert report["memorization"] is None
    out = capsys.readouterr().out
    assert "64 generated images, 64 test images of shapes; feature_extractor=vae_encoder" in out
    assert "real images" in out and f"{report['real_vs_real']['test/frechet_distance']:.4f}" in out


def test_gan_evaluation_averages_draws_and_searches_for_copies(gan_result, tmp_path, capsys):
    command = [*SMALL_EVALUATION, f"ckpt={gan_result[0]}"]
    settings = ["num_draws=1", "num_train_images=0"]
    single = run_stage(compose(*command, *settings), tmp_path / "single")
    report = json.loads((tmp_path / "single" / "evaluate" / "evaluation.json").read_text())
    assert report["standard_errors"] == {}
    first = single.metrics["test/recall"]
    result = run_stage(compose(*command), tmp_path)
    report = json.loads((tmp_path / "evaluate" / "evaluation.json").read_text())
    second = 2 * result.metrics["test/recall"] - first
    expected = abs(first - second) / 2  # standard error of a mean of two
    assert report["standard_errors"]["test/recall"] == pytest.approx(expected, abs=1e-6)
    pairs = report["memorization"]["closest_pairs"]
    assert report["memorization"]["num_train_images"] == 256 and len(pairs) == 32
    distances = [pair["distance"] for pair in pairs]
    assert distances == sorted(distances) and min(distances) > 0
    assert (tmp_path / "evaluate" / "nearest_training_images.png").exists()
    out = capsys.readouterr().out
    assert "mean of 2 draws of latents" in out and "standard error" in out
    assert "test/memorized_fraction" in out


def test_gan_evaluation_of_few_images_leaves_out_the_frechet_distance(gan_result, tmp_path):
    settings = ["num_images=16", "num_draws=1"]
    result = run_stage(compose(*SMALL_EVALUATION, *settings, f"ckpt={gan_result[0]}"), tmp_path)
    assert not {"test/frechet_distance", "test/combined_distance"} & result.metrics.keys()
    assert {"test/kernel_distance", "test/coverage"} <= result.metrics.keys()


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["num_images=16", "sweep_metric=test/frechet_distance"],
            "sweep_metric must be test/kernel_distance with 16 images and 16 features",
        ),
        (
            ["num_images=16", "sweep_metric=test/combined_distance"],
            "sweep_metric must be test/kernel_distance with 16 images and 16 features",
        ),
        (["num_draws=0"], "num_draws must be at least 1 for a GAN; got 0"),
        (
            ["sweep_metric=test/nll"],
            "sweep_metric must be one of test/frechet_distance, test/combined_distance, ",
        ),
    ],
)
def test_gan_evaluation_with_invalid_settings_is_rejected(gan_result, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        run_stage(compose(*SMALL_EVALUATION, f"ckpt={gan_result[0]}", *overrides), tmp_path)
    assert not list(tmp_path.iterdir())


def test_gan_rejects_a_sweep_metric_that_it_does_not_report(vae_result, tmp_path):
    run = compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", "sweep_metric=val/frechet_distance")
    with pytest.raises(ValueError, match="sweep_metric must be one of val/combined_distance, t"):
        run_stage(run, tmp_path)


def test_gan_record_contains_transferred_layers_and_vae_compute(vae_result, gan_result):
    record = json.loads((gan_result[1].folder / "run.json").read_text())
    # The compute includes the steps after the best checkpoint.
    vae = load_checkpoint(vae_result[0] / "vae" / "checkpoints" / "last.ckpt")
    assert record["stage1_compute"] == vae.vae_flops / 1e15 > 0
    assert record["config"]["vae"]["likelihood"]["name"] == "bernoulli"
    generator, discriminator = record["transfer"]
    assert generator["network"] == "generator" and generator["copied"] and not generator["fresh"]
    # The discriminator has another size than the encoder.
    assert discriminator["network"] == "discriminator" and not discriminator["copied"]
    assert (
        record["real_vs_real"]["frechet_distance"] > 0
        and record["metrics"] == gan_result[1].metrics
    )


def test_gan_with_all_options_trains_and_loads(vae_result, tmp_path):
    overrides = [
        "discriminator.activation=silu",
        "warm_start.discriminator=true",
        "warm_start.aggregate_posterior=true",
    ]
    overrides += [
        "discriminator.hidden_dim=32",
        "warm_start.reconstruction_weight=1",
        "warm_start.feature_weight=1",
        "warm_start.freeze_layers=1",
    ]
    overrides += [
        "warm_start.freeze_images=128",
        "augmentation=diff_augment",
        "augmentation.adaptive_target=0.6",
    ]
    overrides += [
        "discriminator_warmup_accuracy=0.9",
        "gradient_accumulation=2",
        "gradient_clip=10",
        "ema_rampup=0.5",
    ]
    overrides += [
        "adversarial_loss=relativistic",
        "gradient_penalty=r1_r2",
        "score_every_n_images=128",
    ]
    result = run_stage(compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", *overrides), tmp_path)
    checkpoint = load_checkpoint(result.checkpoint)
    latents = checkpoint.build_latents()
    assert latents.aggregate is not None
    assert checkpoint.build_generator()(latents().sample((3,))).shape == (3, 1, 28, 28)
    rows = list(csv.DictReader((result.folder / "metrics.csv").read_text().splitlines()))
    images = [float(row["val/images"]) for row in rows if row["val/images"]]
    assert images == [0, 128, 256, 384, 512]
    probabilities = [row["train/augment_probability"] for row in rows]
    assert all(0 <= float(value) <= 1 for value in probabilities if value) and any(probabilities)


def test_final_weights_are_scored_and_can_be_the_best(vae_result, tmp_path):
    overrides = [f"vae_ckpt={vae_result[0]}", "score_every_n_images=192", "discriminator_warmup=0"]
    result = run_stage(compose(*SMALL_GAN, *overrides), tmp_path)
    rows = list(csv.DictReader((result.folder / "metrics.csv").read_text().splitlines()))
    scored = {
        float(row["val/images"]): float(row["val/combined_distance"])
        for row in rows
        if row["val/images"]
    }
    assert list(scored) == [0, 192, 384, 512]
    del scored[0]
    best = min(scored, key=scored.get)
    assert result.metrics["val/combined_distance"] == pytest.approx(scored[best])
    assert torch.load(result.checkpoint, weights_only=True)["gan_progress"]["images"] == best


def test_compare_stage_compares_two_trained_runs(vae_result, tmp_path):
    for label, start in (("cold", "none"), ("warm", "all")):
        overrides = [f"label={label}", f"warm_start.generator={start}", "discriminator_warmup=0"]
        run_stage(compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", *overrides), tmp_path / label)
    run_stage(compose("stage=compare", f"runs=[{tmp_path}/cold,{tmp_path}/warm]"), tmp_path / "all")
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        f"comparison.{suffix}" for suffix in ("md", "json", "png")
    }
    assert "| cold " in (tmp_path / "all" / "comparison.md").read_text()


def test_vae_with_learned_components_trains_loads_and_evaluates(tmp_path):
    components = [
        "prior=vamp_prior",
        "prior.num_pseudo_inputs=10",
        "posterior=full_normal",
        "objective=dreg",
    ]
    components += [
        "objective.num_samples=4",
        "likelihood=discretized_logistic_mixture",
        "dataset.channels=3",
        "dataset.height=12",
        "dataset.width=12",
    ]
    components += ["encoder=resnet", "decoder=resnet"]
    result = run_stage(compose(*SMALL_VAE, *components), tmp_path)
    assert {"val/iw_bound", "test/iw_bound", "test/elbo"} <= result.metrics.keys()
    settings = [f"ckpt={tmp_path}", "num_draws=0"]
    evaluated = run_stage(compose(*SMALL_EVALUATION, *settings), tmp_path / "again")
    assert evaluated.metrics["test/nll"] < -evaluated.metrics["test/elbo"]
    bits = evaluated.metrics["test/nll"] / (3 * 12 * 12) / math.log(2)
    assert evaluated.metrics["test/bits_per_dim"] == pytest.approx(bits, rel=1e-5)
    report = json.loads((tmp_path / "again" / "evaluate" / "evaluation.json").read_text())
    assert report["kl"] == "Monte Carlo"
    gan = run_stage(
        compose(*SMALL_GAN, f"vae_ckpt={tmp_path}", "trainer.max_epochs=1"), tmp_path / "gan"
    )
    assert gan.metrics["test/frechet_distance"] >= 0


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf" / "experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_experiment_composes_and_has_a_summary_and_a_command(path):
    _, summary, command = path.read_text().splitlines()[:3]
    assert summary.startswith("# ") and len(summary) <= 92
    assert f"python train.py experiment={path.stem}" in command
    needed = ["dataset.root=images"] if path.stem.startswith(("folder", "r3gan_64")) else []
    if path.stem.startswith("tune"):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra `sweep`")
        needed = ["vae_ckpt=vae"] if path.stem == "tune_gan" else []
    assert compose(f"experiment={path.stem}", *needed)


@pytest.mark.parametrize("name", ["r3gan", "stacked_mnist", "warm_start_study"])
def test_experiments_with_their_own_optimizers_set_all_that_depends_on_the_data(name):
    training = compose(f"experiment={name}").gan
    for adam in (training.generator_optimizer, training.discriminator_optimizer):
        assert None not in (adam.lr, adam.beta1)
    assert training.saturation_logit == 0


def test_the_gpu_experiment_is_combined_with_another():
    run = compose("experiment=[r3gan_64,gpu]", "dataset.root=images")
    assert run.discriminator.name == "resnet" and run.dataset.image_size == 64
    assert run.vae.trainer.accelerator == run.gan.trainer.accelerator == "gpu"
    assert run.gan.trainer.precision == "bf16-mixed"
    assert run.vae.trainer.precision is None


def test_pipeline_rejects_an_aggregate_posterior_of_too_few_images(tmp_path):
    run = compose(
        *SMALL_PIPELINE,
        "dataset=shapes",
        "dataset.num_train=64",
        "latent_dim=64",
        "gan.discriminator_warmup=0",
        "gan.warm_start.aggregate_posterior=true",
    )
    message = "gan: the number of training images must be above latent_dim=64 .*; got 64"
    with pytest.raises(ValueError, match=message):
        run_stage(run, tmp_path)
    assert not (tmp_path / "vae").exists()


def test_validation_nll_uses_the_prepared_data(tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr(Shapes, "prepare", lambda source: prepared.append(source) or [])
    run_stage(compose(*SMALL_VAE, "trainer.max_epochs=1", "sweep_metric=val/nll"), tmp_path)
    assert len(prepared) == 1


@pytest.mark.parametrize("kl, is_warned", [(0.01, True), (20.0, False)])
def test_posterior_collapse_is_reported(kl, is_warned, caplog):
    report_collapse(kl)
    assert ("posterior collapse: the KL is 0.01 nats" in caplog.text) == is_warned


def test_a_run_with_a_collapsed_posterior_ends_with_a_warning(tmp_path, caplog):
    settings = ["objective.beta=1e4", "objective.beta_warmup_epochs=0", "trainer.max_epochs=6"]
    run_stage(compose(*SMALL_VAE, *settings), tmp_path)
    assert "posterior collapse: the KL is 0." in caplog.text


@pytest.mark.parametrize("num_train, width", [(999, 32), (1000, 64)])
def test_checkpoints_contain_the_default_widths(tmp_path, caplog, num_train, width):
    """A later change of the default must not change the networks of a checkpoint."""
    data = ["dataset=shapes", "dataset.num_val=16", "dataset.num_test=16"]
    data += [f"dataset.num_train={num_train}", "dataset.height=32", "dataset.width=32"]
    settings = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "encoder.max_width=4"]
    vae = ["stage=vae", *data, *settings, "decoder.max_width=4"]
    caplog.set_level("INFO", logger="vaegan")
    result = run_stage(compose(*vae), tmp_path / "vae")
    assert f"networks: encoder.width={width} decoder.width={width}" in caplog.text
    saved = torch.load(result.checkpoint, weights_only=True)["vaegan"]["run"]
    assert saved["encoder"]["width"] == saved["decoder"]["width"] == width


@pytest.mark.parametrize("resampling, width", [("bilinear", 8), ("strided", 32)])
def test_default_width_of_a_discriminator_is_that_of_a_similar_encoder(
    vae_result, tmp_path, resampling, width
):
    settings = ["discriminator.width=null", f"discriminator.resampling={resampling}"]
    settings += ["trainer.max_epochs=1", "discriminator_warmup=64"]
    run = compose(*SMALL_GAN, *settings, f"vae_ckpt={vae_result[0]}")
    result = run_stage(run, tmp_path)
    saved = torch.load(result.checkpoint, weights_only=True)["vaegan"]["run"]
    assert saved["discriminator"]["width"] == width


@pytest.mark.parametrize("settings", [[], ["encoder.width=8"]])
def test_early_check_of_a_pipeline_uses_the_default_widths(settings):
    data = ["dataset=shapes", "dataset.num_train=64", "dataset.num_val=16", "dataset.num_test=16"]
    data += ["dataset.height=32", "dataset.width=32", "gan.loader.batch_size=16"]
    gan = ["gan.warm_start.discriminator=true", "feature_extractor=vae_encoder"]
    run = compose("stage=pipeline", *data, *settings, *gan)
    check_gan(run, run.dataset.build())
    wide = compose("stage=pipeline", *data, *settings, *gan, "discriminator.width=64")
    with pytest.raises(ValueError, match=r"has widths=\[32, 64, 128\]"):
        check_gan(wide, wide.dataset.build())
