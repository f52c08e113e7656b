import json
import shutil
import sys
import tempfile

import pytest
import torch

from tests.conftest import SMALL_NETS, SMALL_TRAINER, compose
from tests.faults import (
    TWO_PROCESSES,
    assert_same_runs,
    fork,
    kill,
    resume_checkpoints,
    run_command_line,
    run_in_process,
    wait_until,
)
from tests.image_files import fill
from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.loader_processes import kill_loader_processes, loader_iterators
from vaegan.data.streaming import StreamedArray, Streaming, pack
from vaegan.stages.execute import execute
from vaegan.stages.stage_table import run_stage

SPLITS = ("train", "val", "test")
SHAPE = (3, 6, 8)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*IterableDataset.*"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with class folders of images, and with the chunks that stage=pack made of them."""
    folder = tmp_path_factory.mktemp("streaming")
    for i, name in enumerate(("cat", "dog")):
        fill(folder / "images" / name, 60, start=60 * i)
    (folder / "images" / "broken.png").write_bytes(b"words")
    for name in ("data", "chunks"):  # litdata works in these by default, and empties them
        (folder / "tmp" / name).mkdir(parents=True)
        (folder / "tmp" / name / "other_file").touch()
    words = ["stage=pack", f"output={folder / 'chunks'}", *settings(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setattr(tempfile, "tempdir", None)  # read from the variable in the next use
        run_command_line(folder / "output", folder, words)
    output = (folder / "output").read_text()
    assert sorted(path.name for path in (folder / "tmp").rglob("*")) == [
        "chunks",
        "data",
        "other_file",
        "other_file",
    ]
    assert "skipped files: 1." in output and "dataset=streaming" in output
    return folder


def settings(folder):
    return [
        f"dataset.root={folder / 'images'}",
        "dataset.image_size=[6,8]",
        f"dataset.cache={folder / 'cache'}",
    ]


def training_arguments(folder):
    """Return the command-line arguments of a small training on the chunks."""
    arguments = [
        "stage=vae",
        *SMALL_NETS,
        *SMALL_TRAINER,
        "trainer.enable_progress_bar=false",
        "dataset=streaming",
    ]
    return [
        *arguments,
        f"dataset.root={folder / 'chunks'}",
        "dataset.image_size=[6,8]",
        "trainer.accelerator=cpu",
    ]


def make_source(folder, **config):
    return Streaming.Config(root=str(folder / "chunks"), **{"image_size": [6, 8]} | config).build()


def make_loader(folder, num_workers, seed, epoch=0, batches_done=0):
    return make_source(folder).train_loader(8, num_workers, seed, epoch, batches_done)


def to_bytes(images):
    """Return the bytes of each image, for comparisons."""
    return [bytes(image.numpy()) for image in images]


def epoch_images(loader):
    """Return the bytes of all images of an epoch, in order."""
    return [image for batch, _ in loader for image in to_bytes(batch)]


def test_chunks_contain_all_images_in_mixed_class_order(folder):
    original = compose("stage=vae", "dataset=image_folder", *settings(folder)).dataset.build()
    source = make_source(folder)
    assert source.prepare() == [] and source.image_shape == SHAPE
    for name in SPLITS:
        images, labels, _ = original.split(name)
        expected = dict(zip(to_bytes(images[:]), labels.tolist(), strict=True))
        found, found_labels, _ = source.split(name)
        assert len(found) == len(found_labels) == len(images)
        assert dict(zip(to_bytes(found[:]), found_labels[:].tolist(), strict=True)) == expected
        assert found[torch.tensor([1, 0])].shape == (2, *SHAPE) and found[:0].shape == (0, *SHAPE)
    assert 0 < source.split("train").labels[:20].sum() < 20


def test_killed_loader_processes_are_not_shut_down(folder):
    batches = iter(make_loader(folder, 2, seed=0))
    next(batches)
    earlier = [item for item in loader_iterators() if item._shutdown]
    kill_loader_processes()
    iterators = [item for item in loader_iterators() if item not in earlier]
    assert iterators and all(item._shutdown for item in iterators)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_each_epoch_has_its_own_order_without_repetition(folder, num_workers):
    images = make_source(folder).split("train").images
    loader = make_loader(folder, num_workers, seed=0)
    first, second = epoch_images(loader), epoch_images(loader)
    assert len(first) == len(set(first)) == 8 * len(loader)
    assert len(loader) >= len(images) // 8 - max(1, num_workers)
    assert first != second
    assert epoch_images(make_loader(folder, num_workers, seed=0)) == first
    assert epoch_images(make_loader(folder, num_workers, seed=1)) != first


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_loader_resumes_within_an_epoch(folder, num_workers):
    loader = make_loader(folder, num_workers, seed=0)
    epochs = [list(loader) for _ in range(3)]
    resumed = make_loader(folder, num_workers, seed=0, epoch=1, batches_done=3)
    iter(resumed)  # as Lightning does before training
    for found, expected in ((list(resumed), epochs[1][3:]), (list(resumed), epochs[2])):
        assert len(found) == len(expected) > 0
        assert all(
            torch.equal(a, b)
            for pair in zip(found, expected, strict=True)
            for a, b in zip(*pair, strict=True)
        )


def test_data_module_uses_the_loader_and_validates_in_order(folder):
    loader = LoaderConfig(batch_size=8, eval_batch_size=5)
    data = ImageDataModule(make_source(folder), loader, seed=0)
    (images, labels), *_ = data.train_dataloader()
    assert (
        images.shape == (8, *SHAPE) and images.dtype == torch.uint8 and labels.dtype == torch.int64
    )
    val_images = torch.cat([images for images, _ in data.val_dataloader()])
    assert torch.equal(val_images, data.splits["val"].images[:])
    assert data.splits["train"].num_bytes == float("inf")


def test_two_ranks_train_on_chunks(folder, tmp_path):
    arguments = [*training_arguments(folder), "loader.batch_size=16", *TWO_PROCESSES]
    run_in_process(tmp_path / "log", lambda: execute(compose(*arguments), tmp_path / "run"))
    assert (tmp_path / "run" / "vae" / "checkpoints" / "best.ckpt").exists()


def test_killed_training_on_chunks_resumes_exactly(folder, tmp_path):
    arguments = [
        *training_arguments(folder),
        "loader.batch_size=8",
        "checkpoint.every_n_images=16",
        "trainer.max_epochs=3",
    ]
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    run_in_process(tmp_path / "log", lambda: execute(compose(*arguments), undisturbed))
    pid = fork(tmp_path / "log", lambda: execute(compose(*arguments), run))
    wait_until(lambda: len(resume_checkpoints(run)) == 2)
    kill(pid)
    run_in_process(tmp_path / "log", lambda: execute(compose(*arguments, "resume=true"), run))
    assert "resuming from" in (tmp_path / "log").read_text()
    assert_same_runs(undisturbed, run, ["vae"])


def test_ranks_read_different_images(folder, monkeypatch):
    """The epochs of all ranks together contain no image twice, with simulated ranks."""
    from litdata.utilities.env import _DistributedEnv

    seen = []
    for rank in range(2):
        monkeypatch.setattr(
            _DistributedEnv, "detect", classmethod(lambda cls, rank=rank: cls(2, rank, 1))
        )
        source = make_source(folder)
        images = source.split("train").images
        seen += epoch_images(source.train_loader(4, 0, 0, 0, 0))
    assert len(seen) == len(set(seen)) >= 0.8 * len(images)


def test_another_image_size_raises(folder):
    with pytest.raises(
        ValueError,
        match=r"dataset.image_size and dataset.channels give images of 192 bytes.* of 144 bytes",
    ):
        make_source(folder, image_size=8).split("val").images[:]


def test_root_without_chunks_raises_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"contains no chunks .*python train.py stage=pack"):
        make_source(tmp_path).prepare()


def test_existing_chunks_are_not_overwritten(folder):
    run = compose("stage=pack", f"output={folder / 'chunks'}", *settings(folder))
    with pytest.raises(
        ValueError, match="train already exists; choose another output, or remove it"
    ):
        run_stage(run, folder)


MALICIOUS_CONTEXT = {
    "default_factory_module": "evil_module",
    "default_factory_name": "x",
    "dict_context": [],
}
# A description of nested items that names a module, which litdata would import.
MALICIOUS_SPEC = json.dumps(
    [1, {"type": "collections.defaultdict", "context": MALICIOUS_CONTEXT, "children_spec": []}]
)


@pytest.mark.parametrize(
    "edit, message",
    [
        (
            lambda index: index["config"].update(data_format=["pickle"]),
            r"refused: stage=pack did not write these items \(format \['pickle'\]",
        ),
        (
            lambda index: index["config"].update(data_spec=MALICIOUS_SPEC),
            r"refused: stage=pack did not write these items",
        ),
        (
            lambda index: index["chunks"][0].update(filename="../../evil.bin"),
            r"refused: the chunk name '\.\./\.\./evil\.bin' is a path",
        ),
    ],
)
def test_malicious_index_is_refused_before_any_item_is_read(
    folder, tmp_path, edit, message, monkeypatch
):
    (tmp_path / "chunks" / "train").mkdir(parents=True)
    for path in (folder / "chunks" / "train").iterdir():
        (tmp_path / "chunks" / "train" / path.name).write_bytes(path.read_bytes())
    index = json.loads((folder / "chunks" / "train" / "index.json").read_text())
    edit(index)
    (tmp_path / "chunks" / "train" / "index.json").write_text(json.dumps(index))
    monkeypatch.setattr(StreamedArray, "__getitem__", None)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    with pytest.raises(ValueError, match=message):
        make_source(tmp_path).split("train")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"chunks": [], "config": {}}'])
def test_damaged_index_raises(tmp_path, content):
    (tmp_path / "chunks" / "train").mkdir(parents=True)
    (tmp_path / "chunks" / "train" / "index.json").write_text(content)
    with pytest.raises(ValueError, match="split train: cannot be opened"):
        make_source(tmp_path).split("train")


def test_damaged_chunk_raises(folder, tmp_path):
    shutil.copytree(folder / "chunks", tmp_path / "chunks")
    for path in (tmp_path / "chunks" / "val").glob("*.bin"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="split val: a chunk is damaged or unavailable"):
        make_source(tmp_path).split("val").images[:]


@pytest.mark.parametrize("argument", ["dataset.crop=random", "dataset.flip=true"])
def test_packing_with_augmentation_raises(folder, tmp_path, argument):
    run = compose("stage=pack", f"output={tmp_path / 'out'}", *settings(folder), argument)
    with pytest.raises(
        ValueError, match=r"dataset\.crop and dataset\.flip must be left at their defaults"
    ):
        run_stage(run, tmp_path)


def test_missing_litdata_raises_with_the_install_command(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(ValueError, match=r"uv sync --extra streaming"):
        make_source(folder).split("train")


def test_item_is_the_label_followed_by_the_pixels():
    image = torch.randint(256, (3, 6, 8), dtype=torch.uint8)
    item = pack(image, 258)
    assert item[:8] == bytes([2, 1, 0, 0, 0, 0, 0, 0]) and item[8:] == bytes(image.numpy())


@pytest.mark.parametrize(
    "key, value", [("image_size", 2), ("image_size", [8]), ("channels", 2), ("cache_gb", 0.0)]
)
def test_invalid_settings_raise(key, value):
    with pytest.raises(ValueError, match=f"{key} must be"):
        Streaming.Config(root="chunks", **{key: value})
