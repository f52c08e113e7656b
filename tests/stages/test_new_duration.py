"""A run resumed with another duration equals one run of this duration, or is refused."""

import shutil
from dataclasses import replace

import pytest
import torch

from tests import faults
from tests.conftest import SMALL_GAN, SMALL_PIPELINE, SMALL_VAE, compose
from tests.stages.test_run_folder import stop_after_two_batches
from vaegan.runtime.atomic_files import read_json, write_json
from vaegan.stages import new_duration
from vaegan.stages.folder_access import check_run_folder
from vaegan.stages.new_duration import Plan, find_obstacles
from vaegan.stages.run_folder import RunFolder
from vaegan.stages.stage_checkpoints import SavedTraining
from vaegan.stages.stage_table import run_stage
from vaegan.training.duration import Duration

NUM_STEPS = 4  # per epoch in the small runs
VAE = ["optimizer.lr_warmup=0", "optimizer.lr_final=1", "trainer.val_check_interval=0.5"]
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
    words = [*GAN, f"vae_ckpt={vae_result[0]}", "score_every_n_images=128"]
    for folder, num_images in (("run", 384), ("longer", 640)):
        run_stage(compose(*words, f"trainer.max_images={num_images}"), tmp_path / folder)
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
    new_duration.reopen_stage(run_folder, "vae", NUM_STEPS)
    with pytest.raises(ValueError, match="has already been trained for 256 images"):
        resume(copied, ONE_EPOCH)


@pytest.mark.slow
def test_refused_durations_leave_the_run_unchanged(copied):
    def state():
        return {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}

    before = state()
    with pytest.raises(ValueError, match="already been trained for 256 images.* duration of 128"):
        resume(copied, "trainer.max_images=128")
    with pytest.raises(ValueError, match=r"validations would be 2 steps apart \(were 0.5 epochs\)"):
        resume(copied, "trainer.max_images=512")
    checkpoints = copied / "vae" / "checkpoints"
    content = torch.load(checkpoints / "best.ckpt", weights_only=True)
    content["callbacks"]["ResumeCheckpoints"]["is_finished"] = True
    torch.save(content, checkpoints / "best.ckpt")
    with pytest.raises(ValueError, match=r"best.ckpt contains the last weights.* init=") as error:
        resume(copied)
    assert "effect" not in str(error.value)
    (checkpoints / "last.ckpt").unlink()
    with pytest.raises(ValueError, match=r"last.ckpt is missing or damaged"):
        resume(copied)
    same = {path for path, time in state().items() if before[path] == time}
    assert before.keys() - same == {checkpoints / "best.ckpt", checkpoints / "last.ckpt"}


SAVED = SavedTraining(run={}, num_steps=8, is_finished=True)


def obstacles(run, changed_run=None, val_intervals=(2, 2), saved=SAVED):
    before = Plan(run, Duration(8, NUM_STEPS, 64, None, val_intervals[0]))
    after = Plan(changed_run or run, Duration(16, NUM_STEPS, 64, None, val_intervals[1]))
    return find_obstacles(saved, before, after)


@pytest.mark.parametrize(
    "word, expected",
    [
        ("optimizer.lr_final=0.1", "the effect of optimizer.lr_final=0.1 depends on it"),
        ("optimizer.lr_warmup=0.05", "the effect of optimizer.lr_warmup=0.05 depends on it"),
    ],
)
def test_schedule_of_a_vae_depends_on_the_duration(word, expected):
    assert obstacles(compose(*VAE, word)) == [expected]


@pytest.mark.parametrize(
    "word, expected",
    [
        ("generator_optimizer.lr_final=0", "generator_optimizer.lr_final=0"),
        ("discriminator_optimizer.lr_warmup=0.1", "discriminator_optimizer.lr_warmup=0.1"),
        ("saturation_fraction=0.5", "saturation_fraction=0.5"),
        ("gradient_penalty.gamma_final=0.5", "the weight of gradient_penalty=r1"),
    ],
)
def test_schedules_of_a_gan_depend_on_the_duration(word, expected):
    run = compose(*GAN, "vae_ckpt=x", "saturation_logit=8", word)
    assert obstacles(run) == [f"the effect of {expected} depends on it"]


@pytest.mark.parametrize("word", ["saturation_fraction=1", "saturation_fraction=0"])
def test_constant_settings_do_not_depend_on_the_duration(word):
    run = compose(*GAN, "vae_ckpt=x", "saturation_logit=8", "gradient_penalty=wgan_gp", word)
    assert obstacles(run) == []
    run = compose(*GAN, "vae_ckpt=x", "saturation_logit=0", "saturation_fraction=0.5")
    assert obstacles(run) == []


def test_other_obstacles():
    run = compose(*VAE)
    assert obstacles(run) == []
    assert obstacles(run, val_intervals=(None, 3)) == [
        "validations would be 3 steps apart (were 0.5 epochs)"
    ]
    early = SAVED._replace(num_steps=6)
    assert obstacles(run, saved=early) == ["training ended early, after 384 images"]
    assert obstacles(run, saved=early._replace(is_finished=False)) == []
    run = compose(*GAN, "vae_ckpt=x", "saturation_logit=8", "discriminator_warmup=51")
    changed = replace(run, discriminator_warmup=102)
    assert obstacles(run, changed) == ["the default of discriminator_warmup would change"]


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
    with pytest.raises(ValueError, match=r"vae.trainer.max_epochs=9 \(was 2\).*stage=vae init="):
        check_run_folder(compose(*words["vae"]), "pipeline", tmp_path)
    check_run_folder(compose(*words["gan"]), "pipeline", tmp_path)
    (tmp_path / "gan" / "checkpoints" / "last.ckpt").touch()
    changed.open_stage("gan")
    assert read_json(tmp_path / "config.json")["config"]["gan"]["trainer"]["max_epochs"] == 9


def test_finished_stage_with_another_duration_is_not_finished(tmp_path):
    config = {"trainer": {"max_epochs": 1, "max_images": None}}
    run_folder = RunFolder(tmp_path, config, "vae")
    folder = run_folder.open_stage("vae")
    write_json(folder / "result.json", {"metrics": {}, "real_vs_real": {}})
    assert run_folder.finished_result("vae") is not None
    changed = RunFolder(tmp_path, {"trainer": {"max_epochs": 2, "max_images": None}}, "vae")
    assert changed.finished_result("vae") is None
