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
    """Written down once: another value would change every run that anyone has made."""
    assert derive_seed(0, "train", 1, 0) == 7095099507901934836


def test_other_keys_give_other_seeds():
    keys = [
        (seed, what, i, rank)
        for seed in range(3)
        for what in ("train", "val")
        for i in range(9)
        for rank in (0, 1)
    ]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_generator_repeats():
    assert torch.equal(
        torch.rand(3, generator=make_generator(1)), torch.rand(3, generator=make_generator(1))
    )


def test_global_generators_start_from_the_key_and_nothing_is_queued():
    queued = len(torch.cuda._queued_calls)
    seed_global(torch.device("cpu"), 0, "train", 1, 0)
    first = torch.rand(3)
    assert torch.equal(first, torch.rand(3, generator=make_generator(0, "train", 1, 0)))
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
    assert noise.mean().item() == pytest.approx(
        0.5, abs=0.003
    ) and noise.var().item() == pytest.approx(1 / 12, abs=1e-3)
    assert torch.equal(noise[7:9], image_noise(images[7:9], 0))
    assert torch.equal(noise[0], image_noise(torch.cat([images[3:4], images[:1]]), 0)[1])
    centered = noise.flatten(1) - 0.5
    for other in (image_noise(images, 1), noise.roll(1, 0), noise.roll(1, -1), images):
        assert (centered * (other.flatten(1) - 0.5)).mean().abs() < 1e-3


def test_one_gray_level_changes_all_the_noise():
    image = torch.full((1, 1, 28, 28), 100 / 255)
    changed = image.clone()
    changed[0, 0, 3, 4] = 101 / 255
    assert (image_noise(image, 0) == image_noise(changed, 0)).float().mean() < 0.01


LAST = torch.channels_last
DRAWS = {  # each of a batch of so many images
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
def test_processes_share_the_noise_that_one_would_draw(draw, world_size):
    """Put together, their draws are what one process draws, draw after draw."""
    num = 12
    seed_global(torch.device("cpu"), 0, "train", 5, 0)
    whole = [draw(num), draw(num)]
    dim = list(whole[0].shape).index(num)
    for rank in range(world_size):
        seed_global(torch.device("cpu"), 0, "train", 5, rank)
        with RankInvariantNoise(
            (0, "train", 5, 0), torch.device("cpu"), rank, world_size, num // world_size
        ):
            shares = [draw(num // world_size), draw(num // world_size)]
        for share, all_of_it in zip(shares, whole, strict=True):
            mine = all_of_it.movedim(dim, 0)[rank::world_size].movedim(0, dim)
            assert share.dtype == mine.dtype and torch.equal(share, mine)


def test_real_and_fake_images_behind_each_other_share_alike():
    seed_global(torch.device("cpu"), 0)
    real, fake = torch.rand(2 * 8, 3).split(8)
    for rank in range(2):
        with RankInvariantNoise((0,), torch.device("cpu"), rank, 2, 4):
            assert torch.equal(torch.rand(2 * 4, 3), torch.cat([real[rank::2], fake[rank::2]]))


def test_what_is_of_no_batch_is_each_processs_own():
    with RankInvariantNoise((0,), torch.device("cpu"), 1, 2, 4):
        seed_global(torch.device("cpu"), 3)
        inside = [torch.rand(()), torch.rand(5), torch.zeros(7).exponential_(), torch.randperm(9)]
    seed_global(torch.device("cpu"), 3)
    outside = [torch.rand(()), torch.rand(5), torch.zeros(7).exponential_(), torch.randperm(9)]
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
