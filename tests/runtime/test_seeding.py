import pytest
import torch
from torch.distributions import Normal

from vaegan.runtime.seeding import (
    RankInvariantNoise,
    derive_seed,
    image_noise,
    make_generator,
    seed_global,
    seeded,
)


def test_seeds_are_a_fixed_function_of_the_key():
    """A fixed value: a change would alter the results of all existing configs."""
    assert derive_seed(0, "train", 1, 0) == 7095099507901934836


def test_different_keys_give_different_seeds():
    keys = [
        (seed, stage, i, rank)
        for seed in range(3)
        for stage in ("train", "val")
        for i in range(9)
        for rank in (0, 1)
    ]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_equal_keys_give_equal_generators():
    assert torch.equal(
        torch.rand(3, generator=make_generator(1)), torch.rand(3, generator=make_generator(1))
    )


def test_seed_global_seeds_by_the_key_and_queues_no_calls():
    num_queued = len(torch.cuda._queued_calls)
    seed_global(torch.device("cpu"), 0, "train", 1, 0)
    first = torch.rand(3)
    assert torch.equal(first, torch.rand(3, generator=make_generator(0, "train", 1, 0)))
    assert len(torch.cuda._queued_calls) == num_queued


def test_seeded_restores_the_global_state():
    expected = torch.get_rng_state()
    with seeded("a"):
        first = torch.rand(3)
    with seeded("a"):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), expected)


def test_seeded_initializes_no_gpu(monkeypatch):
    def initialize(*args):
        raise AssertionError("the GPU is initialized")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", initialize)
    num_queued = len(torch.cuda._queued_calls)
    with seeded("a"):
        assert torch.equal(torch.rand(3), torch.rand(3, generator=make_generator("a")))
    assert len(torch.cuda._queued_calls) == num_queued


def test_seeded_restores_only_the_current_gpu(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: "state")
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: calls.append(seed))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *args: calls.append(args))
    with seeded("a"):
        pass
    seed, (first, second) = calls
    assert seed == derive_seed("a")
    assert {first, second} == {"state", torch.device("cuda", 2)}


def test_image_noise_is_uniform_and_independent_between_images():
    images = torch.randint(256, (500, 1, 28, 28)) / 255
    noise = image_noise(images, 0)
    assert 0 <= noise.min() and noise.max() < 1
    assert noise.mean().item() == pytest.approx(
        0.5, abs=0.003
    ) and noise.var().item() == pytest.approx(1 / 12, abs=1e-3)
    assert torch.equal(noise[7:9], image_noise(images[7:9], 0))
    assert torch.equal(noise[0], image_noise(torch.cat([images[3:4], images[:1]]), 0)[1])
    centered = noise.flatten(1) - 0.5
    for other in (image_noise(images, 1), noise.roll(1, 0), noise.roll(1, -1), images):
        assert (centered * (other.flatten(1) - 0.5)).mean().abs() < 1e-3


def test_one_gray_level_changes_all_noise_of_an_image():
    image = torch.full((1, 1, 28, 28), 100 / 255)
    changed = image.clone()
    changed[0, 0, 3, 4] = 101 / 255
    assert (image_noise(image, 0) == image_noise(changed, 0)).float().mean() < 0.01


LAST = torch.channels_last
DRAWS = {  # functions of the batch size
    "rand": lambda num: torch.rand(num, 3),
    "rand of a size": lambda num: torch.rand((num, 1, 1, 1), dtype=torch.float64),
    "randn": lambda num: torch.randn(num, 3),
    "rand_like": lambda num: torch.rand_like(torch.zeros(num, 3, 4, 4)),
    "rand_like, channels last": lambda num: torch.rand_like(
        torch.zeros(num, 3, 4, 4).to(memory_format=LAST)
    ),
    "randn_like": lambda num: torch.randn_like(torch.zeros(num, 5)),
    "rsample": lambda num: Normal(torch.ones(num, 4), 2.0).rsample(),
    "several samples": lambda num: Normal(torch.ones(num, 4), 2.0).rsample((7,)),
    "as many samples as images": lambda num: Normal(torch.ones(num, 4), 2.0).rsample((4,)),
    "as many latents as images": lambda num: Normal(torch.ones(num, 4), 2.0).rsample(),
    "latents": lambda num: Normal(torch.ones(4), 2.0).sample((num,)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_draw_the_noise_of_one_process(draw, world_size):
    """Two consecutive draws: the shares of all ranks form the noise of a single process."""
    num = 12
    seed_global(torch.device("cpu"), 0, "train", 5, 0)
    expected = [draw(num), draw(num)]
    dim = list(expected[0].shape).index(num)
    for rank in range(world_size):
        seed_global(torch.device("cpu"), 0, "train", 5, rank)
        with RankInvariantNoise(
            (0, "train", 5, 0), torch.device("cpu"), rank, world_size, num // world_size
        ):
            shares = [draw(num // world_size), draw(num // world_size)]
        for share, noise in zip(shares, expected, strict=True):
            expected_share = noise.movedim(dim, 0)[rank::world_size].movedim(0, dim)
            assert share.dtype == expected_share.dtype and torch.equal(share, expected_share)


def test_concatenated_real_and_fake_batches_are_divided_separately():
    seed_global(torch.device("cpu"), 0)
    real, fake = torch.rand(2 * 8, 3).split(8)
    for rank in range(2):
        with RankInvariantNoise((0,), torch.device("cpu"), rank, 2, 4):
            assert torch.equal(torch.rand(2 * 4, 3), torch.cat([real[rank::2], fake[rank::2]]))


def test_noise_without_a_batch_dimension_comes_from_the_global_generator():
    with RankInvariantNoise((0,), torch.device("cpu"), 1, 2, 4):
        seed_global(torch.device("cpu"), 3)
        inside = [torch.rand(()), torch.rand(5), torch.zeros(7).exponential_(), torch.randperm(9)]
    seed_global(torch.device("cpu"), 3)
    outside = [torch.rand(()), torch.rand(5), torch.zeros(7).exponential_(), torch.randperm(9)]
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
