import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL_NETS, SMALL_TRAINER, compose
from tests.faults import TWO, assert_same, do, fork, kill, saved, until
from tests.image_files import fill
from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.streaming import StreamedArray, Streaming, pack
from vaegan.stages.execute import execute
from vaegan.stages.stage_table import run_stage

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "val", "test")
SHAPE = (3, 6, 8)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*IterableDataset.*"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of class folders, and what stage=pack makes of it, by the command line."""
    folder = tmp_path_factory.mktemp("streaming")
    for i, name in enumerate(("cat", "dog")):
        fill(folder / "images" / name, 60, start=60 * i)
    (folder / "images" / "broken.png").write_bytes(b"words")
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "stage=pack",
        f"output={folder / 'chunks'}",
        *settings(folder),
    ]
    for name in ("data", "chunks"):  # where litdata works unless told otherwise: it empties them
        (folder / "tmp" / name).mkdir(parents=True)
        (folder / "tmp" / name / "precious").touch()
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in (folder / "tmp").rglob("*")) == [
        "chunks",
        "data",
        "precious",
        "precious",
    ]
    assert "1 files skipped" in ended.stdout and "dataset=streaming" in ended.stdout
    return folder


def settings(folder):
    return [
        f"dataset.root={folder / 'images'}",
        "dataset.image_size=[6,8]",
        f"dataset.cache={folder / 'cache'}",
    ]


def training(folder):
    """Words of a small training on the chunks."""
    words = [
        "stage=vae",
        *SMALL_NETS,
        *SMALL_TRAINER,
        "trainer.enable_progress_bar=false",
        "dataset=streaming",
    ]
    return [
        *words,
        f"dataset.root={folder / 'chunks'}",
        "dataset.image_size=[6,8]",
        "trainer.accelerator=cpu",
    ]


def streamed(folder, **config):
    return Streaming.Config(root=str(folder / "chunks"), **{"image_size": [6, 8]} | config).build()


def load(folder, num_workers, seed, epoch=0, batches_done=0):
    return streamed(folder).train_loader(8, num_workers, seed, epoch, batches_done)


def keys(images):
    return [bytes(image.numpy()) for image in images]


def test_the_chunks_hold_the_images_in_an_order_that_mixes_classes(folder):
    original = compose("stage=vae", "dataset=image_folder", *settings(folder)).dataset.build()
    source = streamed(folder)
    assert source.prepare() == [] and source.image_shape == SHAPE
    for name in SPLITS:
        images, labels, _ = original.split(name)
        expected = dict(zip(keys(images[:]), labels.tolist(), strict=True))
        found, found_labels, _ = source.split(name)
        assert len(found) == len(found_labels) == len(images)
        assert dict(zip(keys(found[:]), found_labels[:].tolist(), strict=True)) == expected
        assert found[torch.tensor([1, 0])].shape == (2, *SHAPE) and found[:0].shape == (0, *SHAPE)
    assert 0 < source.split("train").labels[:20].sum() < 20


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_an_epoch_takes_each_image_once_in_an_order_of_its_own(folder, num_workers):
    images = streamed(folder).split("train").images
    loader = load(folder, num_workers, seed=0)
    first, second = ([key for batch, _ in loader for key in keys(batch)] for _ in range(2))
    assert len(first) == len(set(first)) == 8 * len(loader) and len(loader) >= len(
        images
    ) // 8 - max(1, num_workers)
    assert first != second
    again = [key for batch, _ in load(folder, num_workers, seed=0) for key in keys(batch)]
    assert again == first
    assert [key for batch, _ in load(folder, num_workers, seed=1) for key in keys(batch)] != first


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_an_epoch_that_was_stopped_goes_on_where_it_was(folder, num_workers):
    loader = load(folder, num_workers, seed=0)
    epochs = [list(loader) for _ in range(3)]
    resumed = load(folder, num_workers, seed=0, epoch=1, batches_done=3)
    iter(resumed)  # as Lightning does before it begins
    for found, expected in ((list(resumed), epochs[1][3:]), (list(resumed), epochs[2])):
        assert len(found) == len(expected) > 0
        assert all(
            torch.equal(a, b)
            for pair in zip(found, expected, strict=True)
            for a, b in zip(*pair, strict=True)
        )


def test_the_data_module_trains_from_the_loader_and_validates_in_order(folder):
    data = ImageDataModule(streamed(folder), LoaderConfig(batch_size=8, eval_batch_size=5), seed=0)
    (images, labels), *_ = data.train_dataloader()
    assert (
        images.shape == (8, *SHAPE) and images.dtype == torch.uint8 and labels.dtype == torch.int64
    )
    seen = torch.cat([images for images, _ in data.val_dataloader()])
    assert torch.equal(seen, data.splits["val"].images[:])
    assert data.splits["train"].num_bytes == float("inf")


def test_two_ranks_train_on_chunks(folder, tmp_path):
    words = [*training(folder), "loader.batch_size=16", *TWO]
    do(tmp_path / "log", lambda: execute(compose(*words), tmp_path / "run"))
    assert (tmp_path / "run" / "vae" / "checkpoints" / "best.ckpt").exists()


def test_a_training_from_chunks_that_was_killed_goes_on_as_if_it_never_had_been(folder, tmp_path):
    words = [
        *training(folder),
        "loader.batch_size=8",
        "checkpoint.every_n_images=16",
        "trainer.max_epochs=3",
    ]
    calm, run = tmp_path / "calm", tmp_path / "run"
    do(tmp_path / "log", lambda: execute(compose(*words), calm))
    pid = fork(tmp_path / "log", lambda: execute(compose(*words), run))
    until(lambda: len(saved(run)) == 2)
    kill(pid)
    do(tmp_path / "log", lambda: execute(compose(*words, "resume=true"), run))
    assert "resuming from" in (tmp_path / "log").read_text()
    assert_same(calm, run, ["vae"])


def test_ranks_read_images_of_their_own(folder, monkeypatch):
    """As litdata sees the world: every rank's epoch, put together, has no image twice."""
    from litdata.utilities.env import _DistributedEnv

    seen = []
    for rank in range(2):
        monkeypatch.setattr(
            _DistributedEnv, "detect", classmethod(lambda cls, rank=rank: cls(2, rank, 1))
        )
        source = streamed(folder)
        images = source.split("train").images
        seen += [key for batch, _ in source.train_loader(4, 0, 0, 0, 0) for key in keys(batch)]
    assert len(seen) == len(set(seen)) >= 0.8 * len(images)


def test_another_size_than_was_written_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"dataset.image_size and dataset.channels must be 192.*got 144"
    ):
        streamed(folder, image_size=8).split("val").images[:]


def test_a_root_without_chunks_says_how_to_make_them(tmp_path):
    with pytest.raises(ValueError, match=r"holds no chunks .*python train.py stage=pack"):
        streamed(tmp_path).prepare()


def test_what_is_there_is_not_overwritten(folder):
    run = compose("stage=pack", f"output={folder / 'chunks'}", *settings(folder))
    with pytest.raises(
        ValueError, match="train already exists; choose another output, or remove it"
    ):
        run_stage(run, folder)


IMPORTED = {
    "default_factory_module": "evil_module",
    "default_factory_name": "x",
    "dict_context": [],
}
# a description of nested items that names a module, which litdata would import
IMPORTS = json.dumps(
    [1, {"type": "collections.defaultdict", "context": IMPORTED, "children_spec": []}]
)


@pytest.mark.parametrize(
    "edit, message",
    [
        (
            lambda index: index["config"].update(data_format=["pickle"]),
            r"its items are \['pickle'\].*refused",
        ),
        (
            lambda index: index["config"].update(data_spec=IMPORTS),
            r"not what stage=pack writes: refused",
        ),
        (
            lambda index: index["chunks"][0].update(filename="../../evil.bin"),
            r"names a chunk '\.\./\.\./evil\.bin'",
        ),
    ],
)
def test_a_hostile_index_is_refused_before_anything_is_read(
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
        streamed(tmp_path).split("train")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", ["[]", "{", '{"chunks": [], "config": {}}'])
def test_a_damaged_index_is_said(tmp_path, content):
    (tmp_path / "chunks" / "train").mkdir(parents=True)
    (tmp_path / "chunks" / "train" / "index.json").write_text(content)
    with pytest.raises(ValueError, match="split train: cannot be opened"):
        streamed(tmp_path).split("train")


def test_a_damaged_chunk_is_said(folder, tmp_path):
    shutil.copytree(folder / "chunks", tmp_path / "chunks")
    for path in (tmp_path / "chunks" / "val").glob("*.bin"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="split val: a chunk is damaged or unavailable"):
        streamed(tmp_path).split("val").images[:]


@pytest.mark.parametrize("word", ["dataset.crop=random", "dataset.flip=true"])
def test_random_views_are_not_written(folder, tmp_path, word):
    run = compose("stage=pack", f"output={tmp_path / 'out'}", *settings(folder), word)
    with pytest.raises(
        ValueError, match=r"dataset\.crop and dataset\.flip must be left as they are"
    ):
        run_stage(run, tmp_path)


def test_without_litdata_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(ValueError, match=r"pip install 'vaegan\[streaming\]'"):
        streamed(folder).split("train")


def test_an_item_is_its_label_and_its_pixels():
    image = torch.randint(256, (3, 6, 8), dtype=torch.uint8)
    assert pack(image, 258)[:8] == bytes([2, 1, 0, 0, 0, 0, 0, 0]) and pack(image, 258)[
        8:
    ] == bytes(image.numpy())


@pytest.mark.parametrize(
    "key, value", [("image_size", 2), ("image_size", [8]), ("channels", 2), ("cache_gb", 0.0)]
)
def test_bad_settings_are_refused(key, value):
    with pytest.raises(ValueError, match=f"{key} must be"):
        Streaming.Config(root="chunks", **{key: value})
