"""init=CKPT: training starts from an earlier model of the same stage."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import SMALL_GAN, compose
from tests.untrained import build, component, make_run, save_gan, save_vae
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.config import to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.shapes import Shapes
from vaegan.gan.generator import Generator
from vaegan.gan.warm_start import DEFAULT_BANDWIDTH
from vaegan.stages import gan
from vaegan.stages.gan import resolve_components, resolve_training
from vaegan.stages.initial_weights import (
    choose_vae_weights,
    init_gan,
    init_vae,
    starting_checkpoint,
)
from vaegan.stages.stage_checkpoints import TrainingState, load_training_state
from vaegan.stages.stage_table import run_stage
from vaegan.stages.vae import resolve_plan
from vaegan.vae.model import VAE


def test_a_vae_starts_from_an_earlier_one(tmp_path):
    run = make_run(prior=component("prior", "gaussian_mixture", num_components=3))
    path = save_vae(tmp_path / "vae.ckpt", run)
    vae = build(run, seed=7)
    (transfer,) = init_vae(vae, replace(run, init=str(path)))
    expected = load_checkpoint(path).build_vae().state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in vae.state_dict().items())
    assert transfer.fresh == [] and transfer.num_copied == transfer.num_weights
    assert init_vae(vae, run) == []


def test_layers_that_do_not_fit_are_rejected_or_fresh(tmp_path):
    path = save_vae(tmp_path / "vae.ckpt", make_run(latent_dim=4))
    run = replace(make_run(latent_dim=6), init=str(path))
    vae = build(run, seed=7)
    message = r"layers of the VAE do not fit .* \(2 in total\).*has the shape .*init_mismatch=fresh"
    with pytest.raises(ValueError, match=message):
        init_vae(vae, run)
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    (transfer,) = init_vae(vae, replace(run, init_mismatch="fresh"))
    assert transfer.fresh == ["encoder.head", "decoder.net.0"]
    assert "from " in str(transfer) and "; fresh: encoder.head, decoder.net.0" in str(transfer)
    earlier = load_checkpoint(path).build_vae().state_dict()
    for key, value in vae.state_dict().items():
        is_fresh = key.startswith(("encoder.head", "decoder.net.0"))
        assert torch.equal(value, before[key] if is_fresh else earlier[key]), key


def test_layers_trained_with_another_padding_or_activation_are_rejected(tmp_path):
    earlier = make_run(encoder=component("encoder", "conv", width=8, activation="leaky_relu"))
    path = save_vae(tmp_path / "vae.ckpt", earlier)
    decoder = component("decoder", "conv", width=8, padding="replicate")
    run = make_run(encoder=component("encoder", "conv", width=8), decoder=decoder)
    run = replace(run, init=str(path))
    message = "trained with encoder.activation=leaky_relu decoder.padding=zeros; set these values"
    with pytest.raises(ValueError, match=message):
        init_vae(build(run), run)
    other = replace(run, decoder=component("decoder", "mlp", activation="relu"))
    with pytest.raises(ValueError, match="trained with encoder.activation=leaky_relu; set these"):
        init_vae(build(other), other)  # the decoders have no layers in common
    (transfer,) = init_vae(build(run), replace(run, init_mismatch="fresh"))
    assert not any(name.startswith("encoder.") for name in transfer.fresh)


def test_layers_of_a_decoder_without_skip_excitation_are_rejected_or_all_copied(tmp_path):
    def make(value):
        decoder = component("decoder", "conv", width=8, skip_excitation=value)
        return make_run((3, 32, 32), encoder=component("encoder", "conv", width=8), decoder=decoder)

    earlier = make(False)
    run = replace(make(True), init=str(save_vae(tmp_path / "vae.ckpt", earlier)))
    with pytest.raises(ValueError, match="trained with decoder.skip_excitation=false; set these"):
        init_vae(build(run), run)
    vae = VAE((3, 32, 32), run)
    (transfer,) = init_vae(vae, replace(run, init_mismatch="fresh"))
    assert len(transfer.fresh) == 4 and all(".first" in n or ".last" in n for n in transfer.fresh)
    z = torch.randn(3, run.latent_dim)
    assert torch.equal(vae.decoder(z), build(earlier).decoder(z))


def test_the_default_padding_is_that_of_the_earlier_vae(tmp_path):
    earlier = make_run(decoder=component("decoder", "conv", width=8, padding="replicate"))
    run = replace(earlier, init=str(save_vae(tmp_path / "vae.ckpt", earlier)))
    run = replace(run, decoder=component("decoder", "conv", width=8))
    data = ImageDataModule(Shapes.Config().build(), run.loader, seed=0)
    assert resolve_plan(run, data, saved=None).run.decoder.padding == "replicate"
    run = replace(run, init="")
    assert resolve_plan(run, data, saved=None).run.decoder.padding == "zeros"


def gan_state(path, discriminator):
    """Add a generator and a discriminator to the checkpoint of a GAN."""
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    for key in [key for key in state if key.startswith("ema.module.")]:
        state["generator." + key.removeprefix("ema.module.")] = state[key] + 1
    state |= {f"discriminator.{key}": value for key, value in discriminator.state_dict().items()}
    torch.save(content, path)


def test_a_gan_starts_with_the_generator_the_ema_and_the_discriminator(tmp_path):
    run = make_run()
    path = save_gan(tmp_path / "gan.ckpt", run)
    discriminator = component("discriminator", "conv", width=8, hidden_dim=16)
    trained = discriminator.build((1, 28, 28))
    gan_state(path, trained)
    checkpoint, option = starting_checkpoint(SimpleNamespace(init=str(path)))
    assert option == f"init={path}"
    vae, other = build(run, seed=5), build(run, seed=6)
    module = SimpleNamespace(
        generator=Generator(vae.decoder, vae.likelihood),
        discriminator=discriminator.build((1, 28, 28)),
        ema=SimpleNamespace(module=Generator(other.decoder, other.likelihood)),
        header={"run": {"emphasis": {"saturation": 1.0, "sharpness": 0.0}}},
    )
    transfers = init_gan(module, checkpoint, "error")
    assert [transfer.network for transfer in transfers] == ["generator", "discriminator"]
    for key, value in module.ema.module.state_dict().items():
        assert torch.equal(value, checkpoint.state[f"ema.module.{key}"])
        assert torch.equal(module.generator.state_dict()[key], value + 1)
    for key, value in module.discriminator.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key])
    module.header = {"run": {"emphasis": {"saturation": 3.0, "sharpness": 4.0}}}
    message = r"trained with emphasis.saturation=1.0 emphasis.sharpness=0.0; set these values, or"
    with pytest.raises(ValueError, match=message):
        init_gan(module, checkpoint, "error")
    assert init_gan(module, checkpoint, "fresh") == transfers
    emphasis = {"emphasis": {"saturation": 1.0, "sharpness": 0.0}}
    module.header = {"run": {**emphasis, "discriminator": {"name": "conv", "padding": "replicate"}}}
    checkpoint.run["discriminator"] = {"name": "conv"}  # as in earlier versions
    with pytest.raises(ValueError, match="trained with discriminator.padding=zeros; set these"):
        init_gan(module, checkpoint, "error")
    module.header = {"run": {**emphasis, "noise_inputs": False}}
    checkpoint.run["noise_inputs"] = True
    with pytest.raises(ValueError, match="has noise inputs; set noise_inputs=true, or"):
        init_gan(module, checkpoint, "error")


@pytest.mark.parametrize("has_noise", [False, True])
def test_noise_inputs_are_those_of_the_earlier_gan(has_noise, tmp_path):
    path = save_gan(tmp_path / "gan.ckpt", make_run(), has_noise=has_noise)
    checkpoint = load_checkpoint(path)
    run = compose("stage=gan", f"init={path}")
    data = ImageDataModule(Shapes.Config().build(), run.loader, seed=0)
    assert resolve_components(run, checkpoint, data, None).noise_inputs == has_noise
    given = replace(run, noise_inputs=not has_noise)
    assert resolve_components(given, checkpoint, data, None).noise_inputs != has_noise
    run = compose("stage=gan", "vae_ckpt=vae")
    assert resolve_components(run, checkpoint, data, None).noise_inputs is None
    saved = TrainingState(path, {"discriminator": {}}, 1, is_finished=False, stopped_early=False)
    if has_noise:
        saved.run["noise_inputs"] = True
    assert resolve_components(run, checkpoint, data, saved).noise_inputs == has_noise


@pytest.mark.parametrize(
    "earlier, expected",
    [
        (None, DEFAULT_BANDWIDTH),
        ({"aggregate_posterior": True}, 1.0),  # of earlier versions
        ({"aggregate_posterior": True, "bandwidth": 0.7}, 0.7),
        ({"aggregate_posterior": False}, DEFAULT_BANDWIDTH),
    ],
)
def test_the_bandwidth_is_that_of_the_earlier_gan(earlier, expected):
    run = compose("stage=gan", "vae_ckpt=vae", "warm_start.aggregate_posterior=true")
    source = Shapes.Config().build()
    data = ImageDataModule(source, run.loader, seed=0)
    vae = VAE(source.image_shape)
    plain = None if earlier is None else {"warm_start": earlier}
    assert resolve_training(run, data, vae, plain).warm_start.bandwidth == expected
    run.warm_start.bandwidth = 0.4
    assert resolve_training(run, data, vae, plain).warm_start.bandwidth == 0.4
    run = compose("stage=gan", "vae_ckpt=vae")  # from the prior, as the earlier GAN may not be
    assert resolve_training(run, data, vae, plain).warm_start.bandwidth is None


@pytest.mark.parametrize("word", ["init", "vae_ckpt"])
def test_init_and_resumed_gans_keep_the_bandwidth(word, tmp_path):
    path = save_gan(tmp_path / "gan.ckpt", make_run())
    checkpoint = load_checkpoint(path)
    warm_start = {"aggregate_posterior": True, "bandwidth": 0.7}
    checkpoint.run["warm_start"] = warm_start
    run = compose("stage=gan", f"{word}={path}", "warm_start.aggregate_posterior=true")
    data = ImageDataModule(Shapes.Config().build(), run.loader, seed=0)
    vae = checkpoint.build_vae()
    plan = gan.resolve_plan(run, checkpoint, data, vae, saved=None)
    assert plan.run.warm_start.bandwidth == (0.7 if word == "init" else DEFAULT_BANDWIDTH)
    plain = to_plain(run) | {"warm_start": warm_start | {"bandwidth": 0.6}}
    saved = TrainingState(path, plain, 1, is_finished=False, stopped_early=False)
    plan = gan.resolve_plan(run, checkpoint, data, vae, saved)
    assert plan.run.warm_start.bandwidth == 0.6


def test_checkpoints_of_another_kind_are_rejected(tmp_path):
    run = make_run()
    vae, gan = save_vae(tmp_path / "vae.ckpt", run), save_gan(tmp_path / "gan.ckpt", run)
    with pytest.raises(ValueError, match="is a VAE; to start a GAN from a VAE, use vae_ckpt="):
        starting_checkpoint(SimpleNamespace(init=str(vae)))
    with pytest.raises(ValueError, match="is an export, which has no discriminator"):
        starting_checkpoint(SimpleNamespace(init=str(gan)))
    with pytest.raises(ValueError, match="is a stage=gan checkpoint"):
        init_vae(build(run), replace(run, init=str(gan)))


@pytest.mark.parametrize(
    "words, message",
    [
        (["stage=vae", "init_mismatch=skip"], "init_mismatch must be error or fresh"),
        (["stage=gan", "init=a", "vae_ckpt=b"], "vae_ckpt must be empty with init"),
        (["stage=gan"], "vae_ckpt must be the folder or the checkpoint of a stage=vae run"),
    ],
)
def test_invalid_settings_are_rejected(words, message):
    with pytest.raises(ValueError, match=message):
        compose(*words)


@pytest.mark.slow
def test_a_gan_continues_at_the_scores_of_the_earlier_one(gan_result, tmp_path):
    words = [word for word in SMALL_GAN if "max_epochs" not in word]
    run_stage(compose(*words, f"init={gan_result[0]}", "trainer.max_epochs=1"), tmp_path)
    earlier = gan_result[1]
    with (tmp_path / "gan" / "metrics.csv").open(newline="") as file:
        scores = [row[earlier.tag] for row in csv.DictReader(file)]
    first = next(float(score) for score in scores if score)
    assert first == pytest.approx(earlier.metrics[earlier.tag], rel=1e-4)


@pytest.mark.parametrize(
    "given, is_natural, expected",
    [(None, True, "last"), (None, False, "best"), ("best", True, "best"), ("last", False, "last")],
)
def test_a_gan_starts_from_the_best_or_the_last_weights(given, is_natural, expected, tmp_path):
    folder = tmp_path / "vae" / "checkpoints"
    for name in ("best", "last"):
        save_vae(folder / f"{name}.ckpt", make_run())
    for path in (tmp_path, tmp_path / "vae", folder):
        run = compose("stage=gan", f"vae_ckpt={path}")
        run.warm_start.vae_weights = given
        found, _ = starting_checkpoint(run)
        run, chosen = choose_vae_weights(run, found, is_natural, None)
        assert chosen.path == folder / f"{expected}.ckpt"
        assert run.warm_start.vae_weights == expected  # recorded


def test_vae_ckpt_last_is_the_folder_of_the_newest_vae(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best = save_vae(tmp_path / "outputs" / "vae" / "a" / "vae/checkpoints/best.ckpt", make_run())
    run = compose("stage=gan", "vae_ckpt=last").resolve_defaults()
    assert run.vae_ckpt == str(best.parents[1])


def test_weights_that_vae_ckpt_lacks_are_rejected_or_replaced(tmp_path, caplog):
    unfinished = save_vae(tmp_path / "run" / "vae" / "checkpoints" / "best.ckpt", make_run())
    best = save_vae(tmp_path / "other" / "best.ckpt", make_run())
    last = save_vae(tmp_path / "other" / "last.ckpt", make_run())
    caplog.set_level("INFO")
    for path, expected in ((tmp_path / "run", unfinished), (best, best), (last, last)):
        run = compose("stage=gan", f"vae_ckpt={path}")
        found, _ = starting_checkpoint(run)
        caplog.clear()
        used, checkpoint = choose_vae_weights(run, found, True, None)
        message = "give the folder of a finished stage=vae run"
        messages = [record for record in caplog.records if message in record.getMessage()]
        levels = {unfinished: ["WARNING"], best: ["INFO"], last: []}
        assert [record.levelname for record in messages] == levels[expected]
        assert checkpoint.path == expected
        assert used.warm_start.vae_weights == ("last" if path == last else "best")
        run.warm_start.vae_weights = "best" if path == last else "last"
        with pytest.raises(ValueError, match=r"vae_weights=.* needs the folder of a stage=vae run"):
            choose_vae_weights(run, found, True, None)
    with pytest.raises(ValueError, match=r"vae_weights must be one of best, last, or null"):
        compose("stage=gan", f"vae_ckpt={best}", "warm_start.vae_weights=newest")
    with pytest.raises(ValueError, match=r"vae_weights must be null with init"):
        compose("stage=gan", "init=GAN_RUN", "warm_start.vae_weights=last")


@pytest.mark.parametrize("saved, expected", [({}, "best"), ({"vae_weights": "last"}, "last")])
def test_a_resumed_gan_keeps_the_weights_it_started_from(saved, expected, tmp_path):
    for name in ("best", "last"):
        save_vae(tmp_path / f"{name}.ckpt", make_run())
    folder = tmp_path / "gan"
    assert load_training_state(folder) is None
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    content = {
        "vaegan": {"run": {"warm_start": saved}},
        "loops": {"fit_loop": {"epoch_loop.batch_progress": {"total": {"completed": 100}}}},
        "callbacks": {"ResumeCheckpoints": {"is_finished": False}},
    }
    torch.save(content, folder / "checkpoints" / "00000100.ckpt")
    run = compose("stage=gan", f"vae_ckpt={tmp_path}")
    found, _ = starting_checkpoint(run)
    is_natural = expected == "best"  # the default of a new GAN would be the other weights
    earlier = load_training_state(folder).run
    chosen = choose_vae_weights(run, found, is_natural, earlier)[1]
    assert chosen.path.stem == expected


def test_a_gan_whose_vae_weights_are_gone_is_not_resumed_from_others(tmp_path):
    save_vae(tmp_path / "best.ckpt", make_run())
    run = compose("stage=gan", f"vae_ckpt={tmp_path}")
    found, _ = starting_checkpoint(run)
    with pytest.raises(ValueError, match=r"the last\.ckpt of its VAE, but .* does not"):
        choose_vae_weights(run, found, True, {"warm_start": {"vae_weights": "last"}})
