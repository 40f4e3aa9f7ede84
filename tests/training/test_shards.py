"""Images in tar files: read where they lie, split, drawn and resumed as images in memory are; damage is named."""

import io
import tarfile
import threading
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import blobs, config

from iasolve.training import (
    Augmentation,
    Crops,
    DataConfig,
    Mixture,
    ShardedImages,
    Shards,
    Streams,
    Trainer,
    load_images,
    open_source,
    train,
)

IDLE = Augmentation(exact=1.0, shift=0.0, gamma=(1.0, 1.0), bias_field=0.0, gain=0.0, flip=(False, False))


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def write(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    """Twenty-four images in three shards, each with its label beside it as webdataset has them."""
    images = blobs()
    for number in range(3):
        members = {}
        for key in range(8 * number, 8 * number + 8):
            members |= {f"{key:06d}.png": png(images[key]), f"{key:06d}.cls": b"3"}
        write(tmp_path / f"train-{number}.tar", members)
    return tmp_path


def settings(folder, **changes):
    return DataConfig(folder.name, kind="shards", validation_every=6, **changes)


def test_images_come_in_order_and_split_by_key(shards):
    data = Shards(shards)
    assert len(data) == 24
    np.testing.assert_array_equal([data[i][0] for i in range(24)], blobs())
    assert data.name(9) == f"{shards / 'train-1.tar'}: 000009.png"
    source = open_source(settings(shards), IDLE, shards.parent)
    assert isinstance(source, ShardedImages)
    assert (source.shape, source.count, source.is_complex, source.nonnegative) == ((1, 16, 16), 20, False, True)
    np.testing.assert_array_equal(source.validation[:, 0], blobs()[::6])
    some = open_source(settings(shards, max_images=3), IDLE, shards.parent)
    assert (some.count, len(some.validation)) == (3, 3)


def test_the_same_images_are_drawn_as_from_memory(shards):
    np.savez(shards / "a.npz", images=blobs())
    memory = open_source(DataConfig("a.npz", validation_every=6), Augmentation(), shards)
    lying = open_source(settings(shards), Augmentation(), shards.parent)
    assert torch.equal(lying.draw(9, Streams.of_part(3, 9, 9)), memory.draw(9, Streams.of_part(3, 9, 9)))
    assert torch.equal(lying.draw(9, np.random.default_rng(1)), memory.draw(9, np.random.default_rng(1)))
    crops = Crops(8, scale=(1.0, 2.0), validation=2)
    memory = open_source(DataConfig("a.npz", validation_every=6, crops=crops), Augmentation(), shards)
    lying = open_source(settings(shards, crops=crops), Augmentation(), shards.parent)
    assert torch.equal(lying.validation, memory.validation)
    assert torch.equal(lying.draw(9, Streams.of_part(3, 9, 9)), memory.draw(9, Streams.of_part(3, 9, 9)))
    both = Mixture([memory, lying], [1.0, 1.0])
    assert both.draw(4, Streams.of_part(0, 0, 4)).shape == (4, 1, 8, 8)


def test_shards_split_by_their_names_and_arrays_of_any_type(shards, tmp_path):
    rng = np.random.default_rng(0)
    echoes = [(rng.normal(size=(16, 16)) + 1j * rng.normal(size=(16, 16))).astype(np.complex64) for _ in range(4)]
    folder = tmp_path / "echoes"
    (folder / "val").mkdir(parents=True)
    write(folder / "a.tar", {f"x/{i}.npy": npy(echo) for i, echo in enumerate(echoes[:3])})
    write(folder / "val" / "a.tar", {"0.npy": npy(echoes[3][None])})
    source = open_source(settings(folder, validation_part="val"), IDLE, tmp_path)
    assert (source.count, source.is_complex, source.nonnegative) == (3, True, False)
    np.testing.assert_array_equal(source.validation.numpy(), echoes[3][None, None])
    by_name = replace(settings(shards), train_part="train-[01].tar", validation_part="train-2.tar")
    source = open_source(by_name, IDLE, shards.parent)
    assert source.count == 16
    np.testing.assert_array_equal(source.validation[:, 0], blobs()[16:])


def test_images_are_converted_as_those_of_a_folder(tmp_path):
    folder = tmp_path / "colour"
    folder.mkdir()
    rgb = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    write(folder / "a.tar", {"a.png": png(rgb), "b.png": png(rgb[:16, :16])})
    assert Shards(folder)[0].shape == (3, 20, 24)
    assert Shards(folder, channels=1, size=8)[0].shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"a\.tar: a\.png is uint8 \(3, 20, 24\), the first uint8 \(3, 16, 16\): give"):
        open_source(DataConfig("colour", kind="shards", validation_every=2), IDLE, tmp_path)


# ------------------------------------------------------------------------------------------- damage


def test_a_damaged_member_is_named_with_its_shard(shards):
    path = shards / "train-1.tar"
    content = bytearray(path.read_bytes())
    data = Shards(shards)
    begin = int(data._places[10, 1])
    content[begin + 60] ^= 0xFF
    path.write_bytes(content)
    for number in (*range(10), *range(11, 24)):
        np.testing.assert_array_equal(data[number][0], blobs()[number])
    with pytest.raises(ValueError, match=r"train-1\.tar: 000010\.png cannot be used"):
        data[10]
    path.write_bytes(content[: begin + 30])
    with pytest.raises(ValueError, match=r"train-1\.tar: 000010\.png cannot be used: the shard ends after 30 of"):
        data[10]
    path.unlink()
    with pytest.raises(ValueError, match=r"train-1\.tar: 000008\.png cannot be used: .*No such file"):
        data[8]


@pytest.mark.parametrize("damage", ["cut", "header", "text", "empty", "gzip"])
def test_a_damaged_shard_is_named_with_the_last_good_member(shards, damage):
    path = shards / "train-2.tar"
    content = bytearray(path.read_bytes())
    last = "its beginning"
    if damage == "cut":
        content, last = content[: len(content) // 3], r"00001\d\.(png|cls)"
    elif damage == "header":
        content[int(Shards(shards)._places[20, 1]) - 400] ^= 0xFF
        last = r"000019\.cls"
    elif damage == "text":
        content = b"not a tar file" * 100
    elif damage == "empty":
        content = b""
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(shards / "train-0.tar", "x.png")
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"train-2\.tar is damaged or no plain tar file after {last} .*without compr"):
        Shards(shards)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(np.full((16, 16), np.nan)), "NaN"),
        (npy(np.zeros(4)), r"float64 \(4,\): expected an array"),
        (b"\x93NUMPY nonsense", "cannot be used"),
        (npy(np.zeros((2, 2), dtype=np.uint8))[:-2], "cannot be used"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, content, words):
    write(tmp_path / "a.tar", {"7.npy": content})
    with pytest.raises(ValueError, match=rf"a\.tar: 7\.npy cannot be used: .*{words}|{words}"):
        Shards(tmp_path)[0]


def test_a_pickle_in_a_shard_is_not_run(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    write(tmp_path / "a.tar", {"7.npy": stream.getvalue(), "8.pkl": b"x", "9.pth": b"x"})
    assert len(Shards(tmp_path)) == 1
    with pytest.raises(ValueError, match=r"7\.npy cannot be used: .*allow_pickle"):
        Shards(tmp_path)[0]


def test_data_that_are_not_there_are_refused(shards, tmp_path):
    with pytest.raises(ValueError, match=r"holds no shards val-\*\.tar"):
        open_source(settings(shards, validation_part="val-*.tar"), IDLE, shards.parent)
    write(shards / "only.tar", {"a.txt": b"text"})
    with pytest.raises(ValueError, match="no shard holds an image"):
        Shards(shards, "only.tar")
    with pytest.raises(ValueError, match="left to train on"):
        open_source(replace(settings(shards), validation_every=1), IDLE, shards.parent)
    with pytest.raises(ValueError, match=r"open_source\(config\)"):
        load_images(settings(shards), "", shards.parent)
    with pytest.raises(ValueError, match=r"without data\.size"):
        settings(shards, crops=Crops(8), size=16)


# ------------------------------------------------------------------------------------------- a run


@pytest.mark.slow
def test_a_run_on_shards_that_is_stopped_goes_on_bit_for_bit(shards, monkeypatch):
    monkeypatch.setattr(Trainer, "measure_statistics", partialmethod(Trainer.measure_statistics, batches=4))
    own = replace(config(shards, images=48, validate_every=16), data=settings(shards), folder=shards.parent)

    class StopHereError(Exception):
        pass

    def stop(status):
        if status.images == 24:
            raise StopHereError

    once = train(own, shards / "once")
    with pytest.raises(StopHereError):
        train(own, shards / "parts", callback=stop)
    assert train(own, shards / "parts", resume=True).read_bytes() == once.read_bytes()


def test_a_batch_is_read_by_several_threads_in_the_order_of_the_draw(shards, monkeypatch):
    source = open_source(settings(shards), IDLE, shards.parent)
    alone = source.draw(8, Streams.of_part(0, 0, 8, 0, 1))
    both, read = threading.Barrier(2, timeout=5), Shards.__getitem__

    def meeting(self, number):
        both.wait()  # for another image that is being read meanwhile
        return read(self, number)

    monkeypatch.setattr(Shards, "__getitem__", meeting)
    assert torch.equal(source.draw(8, Streams.of_part(0, 0, 8, 0, 1)), alone)
