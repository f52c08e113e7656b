"""A signal stops every kind of work at once; training runs can be resumed."""

import importlib
import json
import os
import signal

import pytest

from tests.conftest import SMALL_NETS, compose
from tests.image_files import fill
from tests.untrained import make_run, save_gan, save_vae
from vaegan.data.images.decoding import ImageDecoder
from vaegan.runtime import launch as launch_module
from vaegan.runtime.signals import Interrupted
from vaegan.stages.execute import execute

NUM_FILES = 60
SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2]
NET = [*SMALL_NETS, "trainer.max_epochs=1", "loader.batch_size=8"]


@pytest.fixture(autouse=True)
def no_threads(monkeypatch):
    """Keep `has_computed` as it is, for the tests of launching."""
    monkeypatch.setattr(launch_module, "has_computed", False)


def interrupt_in_call(monkeypatch, owner, name, signum, number=3):
    """Send a signal to this process in the given call of a function; return the list of calls."""
    original, calls, sent = getattr(owner, name), [], []

    def call(*args, **kwargs):
        calls.append(name)
        if len(calls) == number and not sent:
            sent.append(signum)
            os.kill(os.getpid(), signum)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.fixture
def folder_run(tmp_path):
    """Return the words of a small run on a folder of images, decoded in one thread."""
    fill(tmp_path / "images", NUM_FILES)
    words = ["stage=vae", "dataset=image_folder", f"dataset.root={tmp_path / 'images'}", *NET]
    return [*words, "dataset.image_size=8", "dataset.num_threads=1"]


def assert_resumable(caught, run, signum):
    """Check the exit status, the message, and that the run folder can be resumed."""
    assert caught.value.status == 128 + signum
    assert str(caught.value) == f"stopped. Resume with: python train.py resume={run}"
    assert json.loads((run / "config.json").read_text())["stage"] == "vae"


@pytest.mark.parametrize("signum", SIGNALS)
def test_signal_stops_decoding_and_keeps_decoded_images(folder_run, tmp_path, monkeypatch, signum):
    monkeypatch.delenv("UV", raising=False)
    words = [*folder_run, f"dataset.cache={tmp_path / 'cache'}"]
    calls = interrupt_in_call(monkeypatch, ImageDecoder, "decode", signum, number=10)
    with pytest.raises(Interrupted) as caught:
        execute(compose(*words), tmp_path / "run")
    assert len(calls) == 10
    assert_resumable(caught, tmp_path / "run", signum)
    calls.clear()
    source = compose(*words).dataset.build()
    source.prepare()
    assert NUM_FILES - 10 <= len(calls) < NUM_FILES


def test_signal_stops_the_check_of_all_files(folder_run, tmp_path, monkeypatch):
    monkeypatch.delenv("UV", raising=False)
    calls = interrupt_in_call(monkeypatch, ImageDecoder, "check", signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        execute(compose(*folder_run, "dataset.cache=null"), tmp_path / "run")
    assert len(calls) == 3
    assert_resumable(caught, tmp_path / "run", signal.SIGTERM)


def test_signal_stops_the_search_for_files(folder_run, tmp_path, monkeypatch):
    monkeypatch.delenv("UV", raising=False)
    from vaegan.data.images import scanning

    calls = interrupt_in_call(monkeypatch, scanning, "inspect_file", signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        execute(compose(*folder_run), tmp_path / "run")
    assert len(calls) == 3
    assert_resumable(caught, tmp_path / "run", signal.SIGTERM)


def test_signal_stops_the_wait_for_another_process(folder_run, tmp_path, monkeypatch):
    from filelock import FileLock

    words = [*folder_run, f"dataset.cache={tmp_path / 'cache'}"]
    folder = compose(*words).dataset.build().cache.folder
    folder.mkdir(parents=True)
    interrupt_in_call(monkeypatch, FileLock, "acquire", signal.SIGTERM, number=3)
    with FileLock(folder / "lock"), pytest.raises(Interrupted):
        execute(compose(*words), tmp_path / "run")


def test_resumed_run_decodes_the_remaining_images(folder_run, tmp_path, monkeypatch):
    words = [*folder_run, f"dataset.cache={tmp_path / 'cache'}"]
    interrupt_in_call(monkeypatch, ImageDecoder, "decode", signal.SIGTERM)
    with pytest.raises(Interrupted):
        execute(compose(*words), tmp_path / "run")
    result = execute(compose(*words, "resume=true"), tmp_path / "run")
    assert result.checkpoint.exists()


@pytest.mark.parametrize("signum", SIGNALS)
def test_signal_stops_an_evaluation(vae_result, tmp_path, monkeypatch, signum):
    from vaegan.vae import evaluation

    calls = interrupt_in_call(monkeypatch, evaluation, "weighted_samples", signum)
    words = ["stage=evaluate", f"ckpt={vae_result[0]}", "num_samples=1000", "chunk_size=100"]
    with pytest.raises(Interrupted) as caught:
        execute(compose(*words, "batch_size=10"), tmp_path / "run")
    assert caught.value.status == 128 + signum and len(calls) == 3
    assert not (tmp_path / "run" / "evaluate" / "evaluation.json").exists()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the checkpoints of an untrained VAE and of a GAN from it."""
    folder = tmp_path_factory.mktemp("models")
    run = make_run()
    return {"vae": save_vae(folder / "vae.ckpt", run), "gan": save_gan(folder / "gan.ckpt", run)}


@pytest.mark.parametrize(
    "stage, model, function, words",
    [
        ("sample", "gan", "sample.write_animation", ["interpolation=0-1", "num_steps=2"]),
        ("encode", "vae", "encode.write_pairs", ["images=IMAGES", "num_ranked=0"]),
        ("export", "gan", "export.write_card", []),
        ("evaluate", "gan", "sample_evaluation.save_pairs", ["num_draws=1", "num_images=10"]),
    ],
)
def test_stopped_command_can_be_repeated_in_its_folder(
    models, tmp_path, monkeypatch, stage, model, function, words
):
    fill(tmp_path / "images", 2)
    words = [word.replace("IMAGES", str(tmp_path / "images")) for word in words]
    run = compose(f"stage={stage}", f"ckpt={models[model]}", *words)
    module, _, name = function.partition(".")
    owner = importlib.import_module(f"vaegan.stages.{module}")
    interrupt_in_call(monkeypatch, owner, name, signal.SIGTERM, number=1)
    with pytest.raises(Interrupted) as caught:
        execute(run, tmp_path / "run")
    assert caught.value.status == 143
    execute(run, tmp_path / "run")
    assert any((tmp_path / "run" / stage).iterdir())


def test_stopped_command_keeps_earlier_results(models, tmp_path, monkeypatch):
    from vaegan.stages import sample

    run = compose("stage=sample", f"ckpt={models['vae']}", "num_images=1")
    execute(run, tmp_path)
    names = sorted(path.name for path in (tmp_path / "sample").iterdir())
    interrupt_in_call(monkeypatch, sample, "load_model", signal.SIGTERM, number=1)
    with pytest.raises(Interrupted):
        execute(run, tmp_path)
    assert sorted(path.name for path in (tmp_path / "sample").iterdir()) == names


def test_signal_stops_a_comparison(tmp_path, monkeypatch):
    from vaegan.stages import compare

    interrupt_in_call(monkeypatch, compare, "find_runs", signal.SIGTERM, number=1)
    with pytest.raises(Interrupted):
        execute(compose("stage=compare", f"runs=[{tmp_path}]"), tmp_path / "run")


def test_stopped_packing_leaves_no_output(tmp_path, monkeypatch):
    pytest.importorskip("litdata", reason="needs the extra `streaming`")
    from vaegan.stages import pack

    def stop_in_second_split(source, name, output, run):
        os.makedirs(output)
        if name == "val":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(pack, "write_split", stop_in_second_split)
    words = ["stage=pack", "dataset=shapes", f"output={tmp_path / 'chunks'}"]
    with pytest.raises(Interrupted):
        execute(compose(*words), tmp_path / "run")
    assert not any((tmp_path / "chunks").iterdir())


def test_stopped_command_that_cannot_be_resumed_is_repeated(train, vae_result, monkeypatch):
    from vaegan.vae import evaluation

    monkeypatch.delenv("UV", raising=False)
    interrupt_in_call(monkeypatch, evaluation, "weighted_samples", signal.SIGTERM, number=1)
    words = ["stage=evaluate", f"ckpt={vae_result[0]}"]
    exit_code, _, err = train(*words)
    assert exit_code == 143
    assert f"Start again with: python train.py stage=evaluate ckpt={vae_result[0]}\n" in err
