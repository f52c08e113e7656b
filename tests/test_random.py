import torch

from vaegan.random import derive_seed, generator, seed_global, seeded


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
