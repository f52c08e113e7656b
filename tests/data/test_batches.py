import pytest
import torch

from vaegan.data.batches import LoaderConfig, SequentialBatches, ShuffledBatches


def indices_of(sampler):
    return [batch.indices for batch in sampler]


def test_an_epoch_takes_each_image_at_most_once_in_batches_of_one_size():
    batches = indices_of(ShuffledBatches(23, 5, seed=0))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert len(set(torch.cat(batches).tolist())) == 20


def test_order_is_a_function_of_seed_and_epoch():
    sampler = ShuffledBatches(50, 10, seed=0)
    first = torch.cat(indices_of(sampler))
    sampler.set_epoch(1)
    second = torch.cat(indices_of(sampler))
    sampler.set_epoch(0)
    assert torch.equal(torch.cat(indices_of(sampler)), first)
    assert not torch.equal(second, first)
    assert not torch.equal(torch.cat(indices_of(ShuffledBatches(50, 10, seed=1))), first)


def test_ranks_share_out_the_same_global_batches():
    whole = indices_of(ShuffledBatches(50, 10, seed=0))
    ranks = [
        indices_of(ShuffledBatches(50, 10, seed=0, rank=rank, world_size=2)) for rank in (0, 1)
    ]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_every_image_once(world_size):
    parts = [SequentialBatches(23, 5, rank, world_size) for rank in range(world_size)]
    assert sorted(torch.cat([batch.indices for part in parts for batch in part]).tolist()) == list(
        range(23)
    )
    assert all(len(part) == len(list(part)) for part in parts)


def test_crops_belong_to_images_whatever_the_batches_and_ranks():
    def seen(**kwargs):
        batches = list(ShuffledBatches(40, 8, is_augmented=True, **kwargs))
        return {
            int(i): crop_randoms.tolist()
            for batch in batches
            for i, crop_randoms in zip(*batch, strict=True)
        }

    whole = seen(seed=0)
    assert all(0 <= draw < 1 for crop_randoms in whole.values() for draw in crop_randoms)
    assert seen(seed=0, rank=0, world_size=2) | seen(seed=0, rank=1, world_size=2) == whole
    assert seen(seed=1) != whole


def test_crops_change_with_the_epoch():
    sampler = ShuffledBatches(8, 8, seed=0, is_augmented=True)
    (first,) = sampler
    sampler.set_epoch(1)
    (second,) = sampler
    assert not torch.equal(
        first.crop_randoms[first.indices.argsort()], second.crop_randoms[second.indices.argsort()]
    )


@pytest.mark.parametrize(
    "key, value",
    [("batch_size", 0), ("eval_batch_size", 0), ("num_workers", -1), ("device_share", 1.0)],
)
def test_bad_settings_are_refused(key, value):
    with pytest.raises(ValueError, match=f"{key} must be (at least|in)"):
        LoaderConfig(**{key: value})
