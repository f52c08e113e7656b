from dataclasses import replace
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

import vaegan.data.datamodule as datamodule
from tests.image_files import fill
from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.image_folder import ImageFolder
from vaegan.data.images.decoding import ImageDecoder
from vaegan.data.shapes import Shapes
from vaegan.training.devices import silence_warnings

SOURCE = Shapes.Config(num_train=40, num_val=12, num_test=10).build()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batches_are_floats_in_0_1(num_workers):
    data = ImageDataModule(
        SOURCE, LoaderConfig(batch_size=16, eval_batch_size=5, num_workers=num_workers), seed=0
    )
    batches = list(data.train_dataloader())
    assert [len(images) for images, _ in batches] == [16, 16] and data.num_train_batches == 2
    images, labels = data.on_after_batch_transfer(batches[0], 0)
    assert (
        images.shape == (16, 1, 28, 28) and images.dtype == torch.float32 and labels.shape == (16,)
    )
    assert 0 <= images.min() and images.max() <= 1
    assert [len(images) for images, _ in data.val_dataloader()] == [5, 5, 2]
    assert [len(images) for images, _ in data.test_dataloader()] == [5, 5]


def test_train_and_test_images_do_not_overlap():
    data = ImageDataModule(SOURCE, LoaderConfig(batch_size=8), seed=0)
    train, test = data.splits["train"].images, data.splits["test"].images
    assert not {bytes(x) for x in train.flatten(1).numpy()} & {
        bytes(x) for x in test.flatten(1).numpy()
    }


def test_example_images_are_the_first_of_val():
    data = ImageDataModule(SOURCE, LoaderConfig(batch_size=8), seed=0)
    assert torch.equal(data.example_images(99) * 255, SOURCE.split("val").images.float())


def test_batch_size_above_the_number_of_images_raises():
    message = r"loader\.batch_size must be at most 40, the number of training images; got 41"
    with pytest.raises(ValueError, match=message):
        ImageDataModule(SOURCE, LoaderConfig(batch_size=41), seed=0)


def test_more_devices_than_images_to_evaluate_are_refused():
    data = ImageDataModule(SOURCE, LoaderConfig(batch_size=8), seed=0)
    data.trainer = SimpleNamespace(global_rank=0, world_size=11)
    message = "trainer.devices [*] trainer.num_nodes must be at most 10, the number of test images"
    with pytest.raises(ValueError, match=message):
        data.setup("fit")
    data.trainer.world_size = 10
    data.setup("fit")


def test_small_image_folder_repeats_images_in_a_batch(tmp_path, caplog):
    source = image_folder(tmp_path, num=60).build()
    data = ImageDataModule(source, LoaderConfig(batch_size=128), seed=0)
    num_train = len(source.paths["train"])
    assert f"only {num_train} training images: each batch of loader.batch_size=128" in caplog.text
    (batch,) = data.train_dataloader()
    assert len(batch[0]) == 128 and data.num_train_batches == 1
    assert len(batch[0].flatten(1).unique(dim=0)) == num_train


def image_folder(tmp_path, num=60, **settings):
    fill(tmp_path / "images", num)
    return ImageFolder.Config(
        root=str(tmp_path / "images"), image_size=8, cache=str(tmp_path / "cache"), **settings
    )


def fit_one_epoch(data):
    """Train for one epoch; return the images of all batches."""
    module = Recorder()
    silence_warnings()
    options = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "accelerator": "cpu",
    }
    pl.Trainer(**options, max_epochs=1, enable_model_summary=False).fit(module, data)
    return module.images


class Recorder(pl.LightningModule):
    """Records images without training."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization, self.images = False, []
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters())

    def training_step(self, batch, batch_idx):
        self.images += [image.clone() for image in batch[0]]

    def validation_step(self, batch, batch_idx):
        self.images += [image.clone() for image in batch[0]]


@pytest.mark.parametrize(
    "crop, flip", [("center", False), ("random", False), ("none", True), ("random", True)]
)
def test_images_on_the_device_give_the_same_batches(tmp_path, monkeypatch, crop, flip):
    source = image_folder(tmp_path, crop=crop, flip=flip, on_error="fail").build()
    loader = LoaderConfig(batch_size=8)
    expected = fit_one_epoch(ImageDataModule(source, loader, seed=0))
    monkeypatch.setattr(datamodule, "free_memory", lambda device: 10**9)
    data = ImageDataModule(source, loader, seed=0)
    found = fit_one_epoch(data)
    assert set(data.on_device) == {"train", "val"} and len(found) == len(expected) > 20
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("share, cache", [(0.0, True), (0.25, None)])
def test_large_or_on_demand_splits_are_not_copied_to_the_device(
    tmp_path, monkeypatch, share, cache
):
    monkeypatch.setattr(datamodule, "free_memory", lambda device: 10**9)
    config = image_folder(tmp_path)
    config.cache = config.cache if cache else None
    data = ImageDataModule(config.build(), LoaderConfig(batch_size=8, device_share=share), seed=0)
    assert len(fit_one_epoch(data)) > 20 and not data.on_device


def test_skipped_files_are_logged_once(tmp_path, caplog):
    config = image_folder(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(b"")
    data = ImageDataModule(config.build(), LoaderConfig(batch_size=8), seed=0)
    assert [skipped.path for skipped in data.skipped] == ["a.png", "b.png"]
    assert caplog.text.count("skipped files: 2; the first is 'a.png': the file is empty") == 1


@pytest.mark.parametrize("settings", [{}, {"crop": "random", "flip": True}])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batches_depend_neither_on_the_cache_nor_on_the_number_of_workers(tmp_path, settings):
    """The memory layout is the same too, as it decides the order of floating-point sums."""
    config = image_folder(tmp_path, **settings)
    batches = []
    for cache, num_workers in ((config.cache, 0), (None, 0), (config.cache, 2), (None, 2)):
        source = replace(config, cache=cache).build()
        loader = LoaderConfig(batch_size=8, num_workers=num_workers)
        data = ImageDataModule(source, loader, seed=0)
        loaded = [*data.train_dataloader(), *data.val_dataloader()]
        images = [images for images, _ in loaded] + [data.splits["train"].images[:5]]
        batches.append([(image.stride(), image) for image in images])
    for other in batches[1:]:
        for (stride, image), (other_stride, other_image) in zip(batches[0], other, strict=True):
            assert stride == other_stride and torch.equal(image, other_image)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_files_that_break_during_training_are_listed_by_any_loader_process(tmp_path):
    config = image_folder(tmp_path, max_broken=0.5)
    source = replace(config, cache=None).build()
    data = ImageDataModule(source, LoaderConfig(batch_size=4, num_workers=2), seed=0)
    broken = source.paths["train"][::7]
    for path in broken:
        (tmp_path / "images" / path).write_bytes(b"junk")
    assert not data.skipped
    list(data.train_dataloader())
    assert sorted(skipped.path for skipped in data.skipped) == sorted(broken)


def test_checkpoints_do_not_decode_the_images_again(tmp_path, monkeypatch):
    source = replace(image_folder(tmp_path), cache=None).build()
    data = ImageDataModule(source, LoaderConfig(batch_size=8), seed=0)
    state = {"world_size": 1, "epoch": 3, "batches_done": 2, "data": data.fingerprint}
    monkeypatch.setattr(ImageDecoder, "__call__", lambda self, content: pytest.fail("decoded"))
    data.load_state_dict(state)
    assert (data.epoch, data.batches_done) == (3, 2)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_pinned_only_for_a_gpu(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(datamodule, "free_memory", lambda device: 0)
    data = ImageDataModule(SOURCE, LoaderConfig(batch_size=8), seed=0)
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)
    assert data.val_dataloader().pin_memory == (device == "cuda")
