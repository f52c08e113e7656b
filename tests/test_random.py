import pytest
import torch

from vaegan.random import derive_seed, generator, image_noise, seed_global, seeded


def test_seeds_are_a_fixed_function_of_the_key():
    """Written down once: another value would change every run that anyone has made."""
    assert derive_seed(0, "train", 1, 0) == 7095099507901934836


def test_other_keys_give_other_seeds():
    keys = [
        (seed, what, i, rank) for seed in range(3) for what in ("train", "val") for i in range(9) for rank in (0, 1)
    ]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_generator_repeats():
    assert torch.equal(torch.rand(3, generator=generator(1)), torch.rand(3, generator=generator(1)))


def test_global_generators_start_from_the_key_and_nothing_is_queued():
    queued = len(torch.cuda._queued_calls)
    seed_global(torch.device("cpu"), 0, "train", 1, 0)
    first = torch.rand(3)
    assert torch.equal(first, torch.rand(3, generator=generator(0, "train", 1, 0)))
    assert len(torch.cuda._queued_calls) == queued


def test_seeded_leaves_the_global_state_alone():
    expected = torch.get_rng_state()
    with seeded("a"):
        first = torch.rand(3)
    with seeded("a"):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), expected)


def test_the_noise_of_an_image_is_uniform_and_its_own():
    images = torch.randint(256, (500, 1, 28, 28)) / 255
    noise = image_noise(images, 0)
    assert 0 <= noise.min() and noise.max() < 1
    assert noise.mean().item() == pytest.approx(0.5, abs=0.003) and noise.var().item() == pytest.approx(
        1 / 12, abs=1e-3
    )
    assert torch.equal(noise[7:9], image_noise(images[7:9], 0))
    assert torch.equal(noise[0], image_noise(torch.cat([images[3:4], images[:1]]), 0)[1])
    centred = noise.flatten(1) - 0.5
    for other in (image_noise(images, 1), noise.roll(1, 0), noise.roll(1, -1), images):
        assert (centred * (other.flatten(1) - 0.5)).mean().abs() < 1e-3


def test_one_grey_level_changes_all_the_noise():
    image = torch.full((1, 1, 28, 28), 100 / 255)
    changed = image.clone()
    changed[0, 0, 3, 4] = 101 / 255
    assert (image_noise(image, 0) == image_noise(changed, 0)).float().mean() < 0.01
