import pytest
import torch

from vaegan.data.batches import LoaderConfig, SequentialBatches, ShuffledBatches


def batch_indices(sampler):
    return [batch.indices for batch in sampler]


def test_epoch_has_batches_of_one_size_without_repetition():
    batches = batch_indices(ShuffledBatches(23, 5, seed=0))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert len(set(torch.cat(batches).tolist())) == 20


@pytest.mark.parametrize("num_images, batch_size", [(3, 8), (7, 8), (8, 8), (1, 4)])
def test_small_data_set_is_repeated_to_fill_one_batch(num_images, batch_size):
    sampler = ShuffledBatches(num_images, batch_size, seed=0, is_augmented=True)
    (batch,) = sampler
    counts = batch.indices.bincount(minlength=num_images)
    assert len(sampler) == 1 and len(batch.indices) == len(batch.crop_randoms) == batch_size
    assert counts.max() - counts.min() <= 1


def test_repetitions_of_an_image_in_a_batch_have_different_crops():
    (batch,) = ShuffledBatches(3, 8, seed=0, is_augmented=True)
    assert len(set(map(tuple, batch.crop_randoms.tolist()))) == 8
    ranks = [ShuffledBatches(3, 8, 0, rank, 2, is_augmented=True) for rank in (0, 1)]
    parts = [list(part)[0] for part in ranks]
    for rank, part in enumerate(parts):
        assert torch.equal(part.indices, batch.indices[rank::2])
        assert torch.equal(part.crop_randoms, batch.crop_randoms[rank::2])


def test_order_is_a_function_of_seed_and_epoch():
    sampler = ShuffledBatches(50, 10, seed=0)
    first = torch.cat(batch_indices(sampler))
    sampler.set_epoch(1)
    second = torch.cat(batch_indices(sampler))
    sampler.set_epoch(0)
    assert torch.equal(torch.cat(batch_indices(sampler)), first)
    assert not torch.equal(second, first)
    assert not torch.equal(torch.cat(batch_indices(ShuffledBatches(50, 10, seed=1))), first)


def test_ranks_divide_the_same_global_batches():
    global_batches = batch_indices(ShuffledBatches(50, 10, seed=0))
    ranks = [
        batch_indices(ShuffledBatches(50, 10, seed=0, rank=rank, world_size=2)) for rank in (0, 1)
    ]
    for batch, *parts in zip(global_batches, *ranks, strict=True):
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_batches_contain_each_image_once(world_size):
    parts = [SequentialBatches(23, 5, rank, world_size) for rank in range(world_size)]
    assert sorted(torch.cat([batch.indices for part in parts for batch in part]).tolist()) == list(
        range(23)
    )
    assert all(len(part) == len(list(part)) for part in parts)


def test_crop_randoms_do_not_depend_on_the_number_of_ranks():
    def randoms_by_image(**kwargs):
        batches = list(ShuffledBatches(40, 8, is_augmented=True, **kwargs))
        return {
            int(i): crop_randoms.tolist()
            for batch in batches
            for i, crop_randoms in zip(*batch, strict=True)
        }

    expected = randoms_by_image(seed=0)
    assert all(0 <= x < 1 for crop_randoms in expected.values() for x in crop_randoms)
    first = randoms_by_image(seed=0, rank=0, world_size=2)
    second = randoms_by_image(seed=0, rank=1, world_size=2)
    assert first | second == expected
    assert randoms_by_image(seed=1) != expected


def test_crop_randoms_change_with_the_epoch():
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
def test_invalid_settings_raise(key, value):
    with pytest.raises(ValueError, match=f"{key} must be (at least|in)"):
        LoaderConfig(**{key: value})
