"""A run resumed with another duration equals one run of this duration, or is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from tests import faults
from tests.conftest import SMALL_GAN, SMALL_PIPELINE, SMALL_VAE, compose
from tests.stages.test_run_folder import stop_after_two_batches
from vaegan.config import to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.runtime.atomic_files import read_json, write_json
from vaegan.stages import new_duration
from vaegan.stages.folder_access import check_run_folder, resume_command
from vaegan.stages.new_duration import TrainingPlan, find_obstacles, make_plan, validation_steps
from vaegan.stages.run_folder import RunFolder
from vaegan.stages.stage_checkpoints import TrainingState, read_training_state
from vaegan.stages.stage_table import run_stage
from vaegan.training.duration import Duration

STEPS_PER_EPOCH = 4
VAE = ["optimizer.lr_warmup=0", "optimizer.lr_final=1"]
VAE = [*(word for word in SMALL_VAE if "max_epochs" not in word), *VAE]
GAN = [*(word for word in SMALL_GAN if "max_epochs" not in word), "saturation_fraction=1"]
GAN += [f"{network}_optimizer.lr_final=1" for network in ("generator", "discriminator")]
ONE_EPOCH, TWO_EPOCHS = "trainer.max_epochs=1", "trainer.max_epochs=2"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished VAE run of one epoch."""
    folder = tmp_path_factory.mktemp("finished")
    run_stage(compose(*VAE, ONE_EPOCH), folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """Return the folder of a finished VAE run of one epoch, which the test may change."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """Return the folder of an uninterrupted VAE run of two epochs."""
    folder = tmp_path_factory.mktemp("longer")
    run_stage(compose(*VAE, TWO_EPOCHS), folder)
    return folder


def resume(folder, duration=TWO_EPOCHS, words=VAE):
    """Resume a run with a duration."""
    return run_stage(compose(*words, duration, "resume=true"), folder)


def file_times(folder):
    """Return the time of the last change of each file, except the lock, by path."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.stat().st_mtime_ns for path in paths}


def assert_same_training(one, other, monkeypatch, stage="vae"):
    """Check that two runs are the same, except for the recorded duration of the best checkpoint."""
    load = faults.load_comparable

    def load_without_duration(path):
        content = load(path)
        for run in (content["vaegan"]["run"], content["vaegan"]["vae"]):
            run["trainer"] |= {"max_epochs": None, "max_images": None}
        return content

    monkeypatch.setattr(faults, "load_comparable", load_without_duration)
    faults.assert_same_runs(one, other, [stage])


@pytest.mark.slow
def test_finished_run_that_is_trained_further_equals_one_longer_run(copied, longer, monkeypatch):
    result = resume(copied)
    assert_same_training(copied, longer, monkeypatch)
    assert result.metrics == read_json(longer / "vae" / "result.json")["metrics"]
    assert read_json(copied / "config.json") == read_json(longer / "config.json")
    assert sorted(path.name for path in (copied / "vae" / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    before = faults.output_files(copied / "vae")
    assert resume(copied).metrics == result.metrics  # it has finished
    assert faults.output_files(copied / "vae") == before


@pytest.mark.slow
def test_stopped_run_can_be_resumed_with_a_longer_duration(tmp_path, longer, monkeypatch):
    stop_after_two_batches(compose(*VAE, ONE_EPOCH), tmp_path / "run", monkeypatch)
    resume(tmp_path / "run")
    assert_same_training(tmp_path / "run", longer, monkeypatch)


@pytest.mark.slow
def test_gan_that_ended_in_the_middle_of_an_epoch_is_trained_further(
    tmp_path, vae_result, monkeypatch
):
    vae_folder = shutil.copytree(vae_result[0], tmp_path / "vae_run")
    words = [*GAN, f"vae_ckpt={vae_folder}", "score_every_n_images=128"]
    for folder, num_images in (("run", 384), ("longer", 640)):
        run_stage(compose(*words, f"trainer.max_images={num_images}"), tmp_path / folder)
    best = vae_folder / "vae" / "checkpoints" / "best.ckpt"
    content, original = torch.load(best, weights_only=True), best.read_bytes()
    content["state_dict"]["vae.decoder.net.0.bias"] += 1
    torch.save(content, best)
    before = file_times(tmp_path / "run")
    with pytest.raises(ValueError, match="vae_ckpt is not the VAE that this GAN was started from"):
        resume(tmp_path / "run", "trainer.max_images=640", words)
    assert file_times(tmp_path / "run") == before
    best.write_bytes(original)
    resume(tmp_path / "run", "trainer.max_images=640", words)
    assert_same_training(tmp_path / "run", tmp_path / "longer", monkeypatch, "gan")


@pytest.mark.slow
@pytest.mark.parametrize("duration", [ONE_EPOCH, TWO_EPOCHS])
@pytest.mark.parametrize("num_removed", [0, 1, 2])
def test_interrupted_change_of_the_duration(
    num_removed, duration, copied, finished, longer, monkeypatch
):
    """The run can be resumed with both durations, whatever was done before the interruption."""
    removed = []

    def interrupted_unlink(path, **options):
        if path.suffix in (".json", ".ckpt"):
            if len(removed) == num_removed:
                raise KeyboardInterrupt
            removed.append(path)
        unlink(path, **options)

    unlink = new_duration.Path.unlink
    with monkeypatch.context() as patch:
        patch.setattr(new_duration.Path, "unlink", interrupted_unlink)
        with pytest.raises(KeyboardInterrupt):
            resume(copied)
    is_recorded = read_json(copied / "config.json")["config"]["trainer"]["max_epochs"] == 2
    assert is_recorded == (num_removed == 2)
    resume(copied, duration)
    expected = longer if duration == TWO_EPOCHS else finished
    assert_same_training(copied, expected, monkeypatch)


@pytest.mark.slow
def test_earlier_duration_is_refused_once_it_has_been_changed(copied):
    run_folder = RunFolder(copied, read_json(copied / "config.json")["config"], "vae")
    last = torch.load(copied / "vae" / "checkpoints" / "last.ckpt", weights_only=True)
    new_duration.reopen_stage(run_folder, "vae", last, STEPS_PER_EPOCH)
    with pytest.raises(ValueError, match="trained for 256 images.*Use a longer duration, or"):
        resume(copied, ONE_EPOCH)


@pytest.mark.slow
def test_refused_durations_leave_the_run_unchanged(copied, monkeypatch):
    before = file_times(copied)
    with pytest.raises(ValueError, match="already been trained for 256 images.* duration of 128"):
        resume(copied, "trainer.max_images=128")
    with pytest.raises(ValueError, match="every 4 steps across epochs instead of every epoch"):
        resume(copied, "trainer.max_images=512")
    for changed in (TWO_EPOCHS, "trainer.max_images=256"):
        with monkeypatch.context() as patch, pytest.raises(ValueError, match="data set differs"):
            patch.setattr(ImageDataModule, "fingerprint", ["other"])
            resume(copied, changed)
    (copied / "vae" / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"last.ckpt is missing or damaged"):
        resume(copied)
    after = file_times(copied)
    assert [path.name for path in before if before[path] != after.pop(path)] == ["last.ckpt"]
    assert not after


@pytest.mark.slow
def test_damaged_last_checkpoint_is_skipped(tmp_path, longer, monkeypatch):
    stop_after_two_batches(compose(*VAE, ONE_EPOCH), tmp_path / "run", monkeypatch)
    (tmp_path / "run" / "vae" / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    before = file_times(tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="data set differs"):
        patch.setattr(ImageDataModule, "fingerprint", ["other"])
        resume(tmp_path / "run")
    assert file_times(tmp_path / "run") == before
    resume(tmp_path / "run")
    assert_same_training(tmp_path / "run", longer, monkeypatch)


SAVED = TrainingState(Path("last.ckpt"), run={}, num_steps=8, is_finished=True, stopped_early=False)


@pytest.mark.parametrize(
    "val_interval, fraction, expected",
    [(3, 1.0, [3, 6]), (None, 1.0, [4, 8]), (None, 0.6, [2, 4, 6, 8]), (4, 1.0, [4, 8])],
)
def test_steps_of_validations(val_interval, fraction, expected):
    run = compose(*VAE, ONE_EPOCH, f"trainer.val_check_interval={fraction}")
    plan = TrainingPlan(run, Duration(8, STEPS_PER_EPOCH, 64, None, val_interval), [])
    assert validation_steps(plan) == expected


def test_validations_of_a_finished_run_cannot_change(tmp_path):
    run = compose(*VAE, "trainer.max_images=256")
    trainer = {**to_plain(run)["trainer"], "max_images": None}
    saved = SAVED._replace(run={**to_plain(run), "trainer": trainer}, num_steps=4)

    def resolve(run):
        interval = 2 if run.trainer.max_images else None
        return TrainingPlan(run, Duration(4, STEPS_PER_EPOCH, 64, None, interval), [])

    with pytest.raises(ValueError, match="every 2 steps across epochs instead of every epoch"):
        make_plan(tmp_path / "vae", saved, run, resolve)


def obstacles(run, changed_run=None, val_intervals=(2, 2), saved=SAVED, settings=()):
    """Return the obstacles to 16 steps instead of 8."""
    saved = saved._replace(run=to_plain(run))
    before = TrainingPlan(run, Duration(8, STEPS_PER_EPOCH, 64, None, val_intervals[0]), [])
    duration = Duration(16, STEPS_PER_EPOCH, 64, None, val_intervals[1])
    return find_obstacles(saved, before, TrainingPlan(changed_run or run, duration, list(settings)))


@pytest.mark.parametrize("word", ["optimizer.lr_final=0.1", "optimizer.lr_warmup=0.05"])
def test_schedule_of_a_vae_depends_on_the_duration(word):
    assert compose(*VAE, word).duration_dependent_settings() == [word]


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], []),
        (["generator_optimizer.lr_final=0"], ["generator_optimizer.lr_final=0"]),
        (["discriminator_optimizer.lr_warmup=0.1"], ["discriminator_optimizer.lr_warmup=0.1"]),
        (["saturation_fraction=0.5"], ["saturation_fraction=0.5"]),
        (["saturation_fraction=0.5", "saturation_logit=0"], []),
        (["saturation_fraction=0"], []),
    ],
)
def test_schedules_of_a_gan_depend_on_the_duration(words, expected):
    run = compose(*GAN, "vae_ckpt=x", "saturation_logit=8", *words)
    assert run.duration_dependent_settings() == expected


@pytest.mark.parametrize(
    "words, expected",
    [
        (["r1"], False),
        (["wgan_gp"], False),
        (["none"], False),
        (["r1_r2", "gradient_penalty.gamma_final=0.5"], True),
    ],
)
def test_weight_of_a_penalty_depends_on_the_duration(words, expected):
    run = compose(*GAN, "vae_ckpt=x", f"gradient_penalty={words[0]}", *words[1:])
    assert run.gradient_penalty.build((1, 28, 28)).depends_on_progress() == expected


def test_obstacles_to_a_longer_duration():
    run = compose(*VAE)
    assert obstacles(run) == []
    assert obstacles(run, settings=["a=1", "b=2"]) == [
        "settings whose effect depends on the duration (a=1, b=2)"
    ]
    assert obstacles(run, val_intervals=(None, 1)) == [
        "validations every step instead of every epoch"
    ]
    assert obstacles(run, val_intervals=(3, 3)) == [
        "an additional validation at the end of training"
    ]
    early = "the early end of training, after 384 images"
    assert obstacles(run, saved=SAVED._replace(num_steps=6)) == [early]
    assert obstacles(run, saved=SAVED._replace(num_steps=6, is_finished=False)) == []
    assert obstacles(run, saved=SAVED._replace(stopped_early=True)) == [early.replace("384", "512")]
    run = compose(*GAN, "vae_ckpt=x", "discriminator_warmup=51")
    changed = replace(run, discriminator_warmup=102)
    assert obstacles(run, changed) == [
        "a default that has changed: discriminator_warmup=102 (was 51)"
    ]


@pytest.mark.parametrize("wait_count, expected", [(9, False), (10, True)])
def test_early_stopping_at_the_last_validation_is_known(wait_count, expected):
    stopping = {"wait_count": wait_count, "patience": 10}
    checkpoint = {
        "vaegan": {"run": {}},
        "loops": {"fit_loop": {"epoch_loop.batch_progress": {"total": {"completed": 8}}}},
        "callbacks": {
            "ResumeCheckpoints": {"is_finished": True},
            "EarlyStopping{'monitor': 'val/elbo', 'mode': 'max'}": stopping,
        },
    }
    assert read_training_state(checkpoint, SAVED.path) == SAVED._replace(stopped_early=expected)
    callback = EarlyStopping("val/elbo", mode="max")
    assert callback.state_key in checkpoint["callbacks"]
    assert stopping.keys() <= callback.state_dict().keys()


def test_duration_that_is_written_differently_is_not_new(tmp_path):
    run = compose(*VAE)
    saved = SAVED._replace(run=to_plain(run))
    plan = TrainingPlan(run, Duration(8, STEPS_PER_EPOCH, 64, 2, None), [])
    assert make_plan(tmp_path, saved, compose(*VAE, TWO_EPOCHS), lambda _: plan) == plan._replace(
        saved=saved
    )
    run = compose(*VAE, "trainer.max_images=512")
    saved = SAVED._replace(run=to_plain(run))
    changed = compose(*VAE, "trainer.max_images=512", TWO_EPOCHS)
    with pytest.raises(ValueError, match=r"max_epochs=2 has no .* add trainer.max_images=null"):
        make_plan(tmp_path, saved, changed, lambda _: plan)


def test_stage_of_a_pipeline_may_have_another_duration_until_it_has_begun(tmp_path):
    config = compose(*SMALL_PIPELINE)
    run_folder = RunFolder(tmp_path, check_run_folder(config, "pipeline", tmp_path), "pipeline")
    run_folder.open_stage("vae")
    words = [*SMALL_PIPELINE, "resume=true"]
    words = {stage: [*words, f"{stage}.trainer.max_epochs=9"] for stage in ("vae", "gan")}
    for stage in ("vae", "gan"):
        checkpoints = tmp_path / stage / "checkpoints"
        checkpoints.mkdir(parents=True)
        config = check_run_folder(compose(*words["gan"]), "pipeline", tmp_path)
        check_run_folder(compose(*words["vae"]), "pipeline", tmp_path)
        (checkpoints / "best.ckpt").touch()
        changed = RunFolder(tmp_path, config, "pipeline")
        assert changed.has_new_duration("gan") and not changed.has_new_duration("vae")
    with pytest.raises(ValueError, match=r"changed \(vae.trainer.max_epochs=9\), .*vae init="):
        check_run_folder(compose(*words["vae"]), "pipeline", tmp_path)
    check_run_folder(compose(*words["gan"]), "pipeline", tmp_path)
    (tmp_path / "gan" / "checkpoints" / "last.ckpt").touch()
    changed.open_stage("gan")
    assert read_json(tmp_path / "config.json")["config"]["gan"]["trainer"]["max_epochs"] == 9


def test_command_that_resumes_a_run_has_the_new_duration(tmp_path, monkeypatch):
    monkeypatch.delenv("UV", raising=False)
    RunFolder(tmp_path, {"trainer": {"max_epochs": 1, "max_images": 9}}, "vae").open_stage("vae")
    config = {"trainer": {"max_epochs": 2, "max_images": None}}
    expected = f"python train.py resume={tmp_path}"
    words = "trainer.max_epochs=2 trainer.max_images=null"
    assert resume_command(tmp_path, config, []) == f"{expected} {words}"
    RunFolder(tmp_path, config, "vae").open_stage("vae")
    assert resume_command(tmp_path, config, []) == expected


def test_finished_stage_with_another_duration_is_not_finished(tmp_path):
    config = {"trainer": {"max_epochs": 1, "max_images": None}}
    run_folder = RunFolder(tmp_path, config, "vae")
    folder = run_folder.open_stage("vae")
    write_json(folder / "result.json", {"metrics": {}, "real_vs_real": {}})
    assert run_folder.finished_result("vae") is not None
    changed = RunFolder(tmp_path, {"trainer": {"max_epochs": 2, "max_images": None}}, "vae")
    assert changed.finished_result("vae") is None
