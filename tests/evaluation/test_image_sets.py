"""Images from shards, archives and folders: the same pixels in order, and one line for everything that is wrong."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stablevelocity.data.class_folders import ClassFolders
from stablevelocity.data.shards import write_manifest, write_shard
from stablevelocity.errors import UserError
from stablevelocity.evaluation.image_sets import ImageFolder, open_images

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


def shards(folder: Path) -> Path:
    files = [folder / "a.safetensors", folder / "b.safetensors"]
    write_shard(files[0], {"images": IMAGES[:3]})
    write_shard(files[1], {"images": IMAGES[3:]})
    write_manifest(folder / "manifest.json", files)
    return folder


def archive(folder: Path) -> Path:
    np.savez(folder / "batch.npz", arr_0=IMAGES, arr_1=np.arange(7))
    return folder / "batch.npz"


def compressed(folder: Path) -> Path:
    np.savez_compressed(folder / "batch.npz", arr_0=IMAGES)
    return folder / "batch.npz"


def pngs(folder: Path) -> Path:
    (folder / "below").mkdir()
    for index, image in enumerate(IMAGES):  # "below/" sorts after the digits
        Image.fromarray(image).save(folder / ("below" if index > 4 else ".") / f"{index}.png")
    return folder


@pytest.mark.parametrize("make", [shards, archive, compressed, pngs])
def test_every_source_gives_the_same_images_in_order(tmp_path, make):
    path = make(tmp_path)
    source = open_images(path)
    assert len(source) == 7
    for size, start in ((2, 0), (7, 0), (100, 0), (2, 3)):
        np.testing.assert_array_equal(np.concatenate(list(source.batches(size, start))), IMAGES[start:])
    assert source.identity == open_images(path).identity


def bad_empty(folder: Path) -> Path:
    return folder


def bad_absent(folder: Path) -> Path:
    return folder / "none.npz"


def bad_one(folder: Path) -> Path:
    Image.fromarray(IMAGES[0]).save(folder / "a.png")
    return folder


def _second(folder: Path, image: Image.Image, name: str = "b.png") -> Path:
    Image.fromarray(IMAGES[0]).save(folder / "a.png")
    image.save(folder / name)
    return folder


def bad_values(folder: Path) -> Path:
    return _second(folder, Image.fromarray(IMAGES[0, :, :, 0].astype(np.float32)), "b.tiff")


def bad_animation(folder: Path) -> Path:
    first, *others = [Image.fromarray(image) for image in IMAGES[1:3]]
    first.save(folder / "a.gif", save_all=True, append_images=others)
    return _second(folder, first)


def bad_rgb_16_bit(folder: Path) -> Path:
    """A 1x1 PNG of 16 bits a channel, written by hand: Pillow reads it as 8-bit RGB and cannot write it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x12\x34" * 15) * 6)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    Image.fromarray(IMAGES[0]).save(folder / "a.png")
    (folder / "b.png").write_bytes(png)
    with Image.open(folder / "b.png") as image:
        assert image.mode == "RGB"  # the trap: nothing but the file's header tells
    return folder


def bad_size(folder: Path) -> Path:
    return _second(folder, Image.fromarray(IMAGES[0]).resize((4, 6)))


def bad_cut(folder: Path) -> Path:
    _second(folder, Image.fromarray(IMAGES[1]))
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    return folder


def bad_others_only(folder: Path) -> Path:
    (folder / "a.png").write_text("no image")
    return folder


def bad_floats(folder: Path) -> Path:
    np.savez(folder / "x.npz", arr_0=IMAGES.astype(np.float32) / 255)
    return folder / "x.npz"


def bad_channels_first(folder: Path) -> Path:
    np.savez(folder / "x.npz", arr_0=IMAGES.transpose(0, 3, 1, 2))
    return folder / "x.npz"


def bad_no_images(folder: Path) -> Path:
    np.savez(folder / "x.npz", images=IMAGES)
    return folder / "x.npz"


def bad_archive(folder: Path) -> Path:
    (folder / "x.npz").write_bytes(b"PK\3\4 and no more")
    return folder / "x.npz"


def bad_shards(folder: Path) -> Path:
    write_shard(folder / "a.safetensors", {"latents": np.zeros((3, 2), np.float32)})
    write_manifest(folder / "manifest.json", [folder / "a.safetensors"])
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_empty, "no images and no manifest.json$"),
        (bad_others_only, r"no images and no manifest.json, 1 other file\(s\): a.png \(not an image \(AVIF, BMP"),
        (bad_absent, "no such file or folder"),
        (bad_one, r"holds 1 image\(s\); metrics need at least 2"),
        (bad_values, "b.tiff: cannot be used as an image .*floating-point"),
        (bad_rgb_16_bit, "b.png: cannot be used as an image .*16 bits a channel"),
        (bad_animation, "a.gif: cannot be used as an image .*several pictures"),
        (bad_size, "b.png: 4x6 px, but a.png has 5x6"),
        (bad_cut, "b.png: cannot be used as an image .image file is truncated"),
        (bad_floats, "holds float32, expected uint8"),
        (bad_channels_first, r"shape \(7, 3, 6, 5\), expected \(n, height, width, 3\)"),
        (bad_no_images, "holds no array `arr_0`"),
        (bad_archive, "not a readable .npz"),
        (bad_shards, "hold no `images`"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, make, message):
    with pytest.raises(UserError, match=message) as caught:
        list(open_images(make(tmp_path)).batches(4))
    assert "\n" not in str(caught.value)


def test_a_folder_holds_what_a_class_folder_of_training_holds_and_the_rest_is_said(tmp_path, caplog):
    folder, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for where in (folder / "below", folder / ".ipynb_checkpoints", elsewhere):
        where.mkdir(parents=True)
    pngs(folder / "below")
    pngs(folder / ".ipynb_checkpoints")  # hidden, as a tool leaves it
    for name in ("a.tiff", "b.JFIF", "c", "d.txt"):  # a name says nothing
        Image.fromarray(IMAGES[0]).save(elsewhere / name, "PNG")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder)  # a loop
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.png").write_text("no image")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.png")  # to open it is to wait for ever
    source = open_images(folder)
    assert len(source) == 7 + 4
    expected = [*IMAGES, *[IMAGES[0]] * 4]
    np.testing.assert_array_equal(np.concatenate(list(source.batches(3))), expected)
    assert len(caplog.messages) == 1
    for left_out in (
        "11 images; left out 6 other file(s): again (not a regular file)",
        "gone.png (No such file or directory)",
        "notes.png (not an image (",
        "pipe.png (not a regular file)",
    ):
        assert left_out in caplog.messages[0]


def test_training_and_scoring_take_the_same_files_of_a_folder_and_the_same_pixels(tmp_path, caplog):
    """Grey, transparent, 16-bit, another format, below a link, hidden: each as training does."""
    folder = tmp_path / "data" / "train" / "class"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    pngs(folder / ".hidden")
    ImageFolder(pngs(folder / "below"))
    (folder / "linked").symlink_to(folder / "below")
    grey = Image.fromarray(IMAGES[0, :, :, 0])
    alpha = grey.convert("RGBA")
    alpha.putalpha(Image.fromarray(IMAGES[1, :, :, 0]))
    alpha.save(folder / "alpha.png")
    alpha.convert("LA").save(folder / "grey_alpha.png")
    Image.fromarray(IMAGES[0, :, :, 0].astype(np.uint16) * 257).save(folder / "deep.tiff")
    grey.convert("P").save(folder / "palette.gif", transparency=3)
    grey.save(folder / "grey.JFIF", "JPEG")
    grey.save(folder / "lossless.WEBP", lossless=True)
    scored = open_images(folder)
    assert "left out 1 other file(s): .hidden (hidden name)" in caplog.text
    caplog.clear()
    source = ClassFolders(tmp_path / "data", size=5)  # the short side: nothing is resampled, a row is cut off
    keys = [key for key, _ in source.index("train")]
    assert "left out 1 name(s) that are hidden or lie beside the class folders: class/.hidden" in caplog.text
    assert keys == [f"train/class/{file.relative_to(folder)}" for file in scored.files]
    loaded = source.load(keys)
    assert loaded.problems == []
    assert len(keys) == 7 + 7 + 6
    pixels = np.concatenate(list(scored.batches(64)))
    assert np.array_equal(pixels[:, :5], loaded.images)


def test_a_truncated_archive_is_noticed(tmp_path):
    path = archive(tmp_path)
    with zipfile.ZipFile(path) as whole:
        content = whole.read("arr_0.npy")
    with zipfile.ZipFile(path, "w") as cut:
        cut.writestr("arr_0.npy", content[:-100])
    with pytest.raises(UserError, match="arr_0 ends after 4 of 7 images"):
        list(open_images(path).batches(2))
