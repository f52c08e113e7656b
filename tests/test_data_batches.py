import pytest
import torch

from vaegan.data.batches import ImagesInMemory, LoaderConfig, SequentialBatches, ShuffledBatches
from vaegan.data.datasets import Split


def test_an_epoch_takes_each_image_at_most_once_in_batches_of_one_size():
    batches = list(ShuffledBatches(23, 5, seed=0))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert len(set(torch.cat(batches).tolist())) == 20


def test_order_is_a_function_of_seed_and_epoch():
    sampler = ShuffledBatches(50, 10, seed=0)
    first = torch.cat(list(sampler))
    sampler.set_epoch(1)
    second = torch.cat(list(sampler))
    sampler.set_epoch(0)
    assert torch.equal(torch.cat(list(sampler)), first)
    assert not torch.equal(second, first)
    assert not torch.equal(torch.cat(list(ShuffledBatches(50, 10, seed=1))), first)


def test_ranks_share_out_the_same_global_batches():
    whole = list(ShuffledBatches(50, 10, seed=0))
    ranks = [list(ShuffledBatches(50, 10, seed=0, rank=rank, world_size=2)) for rank in (0, 1)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_every_image_once(world_size):
    parts = [SequentialBatches(23, 5, rank, world_size) for rank in range(world_size)]
    assert sorted(torch.cat([batch for part in parts for batch in part]).tolist()) == list(range(23))
    assert all(len(part) == len(list(part)) for part in parts)


def test_a_batch_is_one_index_operation():
    images, labels = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1), torch.arange(8)
    batch = ImagesInMemory(Split(images, labels))[torch.tensor([5, 2])]
    assert batch[0].flatten().tolist() == batch[1].tolist() == [5, 2]


@pytest.mark.parametrize("key, value", [("batch_size", 0), ("eval_batch_size", 0), ("num_workers", -1)])
def test_bad_settings_are_refused(key, value):
    with pytest.raises(ValueError, match=f"{key} must be at least"):
        LoaderConfig(**{key: value})
