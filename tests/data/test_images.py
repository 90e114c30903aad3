"""Image sources: fixed order, exact pixels, and a word about every file that is not what it should be."""

import csv
import io
import os
import resource
import socket
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits

from stablevelocity.data.class_folders import listing
from stablevelocity.data.decoding import center_crop
from stablevelocity.data.images import check_count, open_source
from stablevelocity.data.stages.images import write_image_index, write_image_manifest, write_image_shard
from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.study.settings import Images

FISH, SHARK, HEN = "n01440764", "n01484850", "n01514859"  # in the order of their labels


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours, so that JPEG keeps them to a few grey levels."""
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    row, column = np.mgrid[:height, :width] / 32
    channels = [127 + 100 * np.sin(row + phase) * np.cos(column + phase) for phase in phases]
    return Image.fromarray(np.stack(channels, 2).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def imagenet_files() -> dict[str, bytes]:
    """The files of a small ImageNet with everything that the real one has been seen to have."""
    plain = picture(90, 70)
    return {
        f"{FISH}/{FISH}_1.JPEG": jpeg(plain),
        f"{FISH}/{FISH}_2.JPEG": jpeg(plain)[:1500],  # truncated
        f"{FISH}/{FISH}_3.JPEG": jpeg(plain.convert("CMYK")),
        f"{SHARK}/{SHARK}_10.JPEG": png(plain),  # a PNG by content
        f"{SHARK}/{SHARK}_9.JPEG": jpeg(plain.convert("L")),
        f"{HEN}/{HEN}_1.JPEG": b"no image at all",
        f"{HEN}/{HEN}_2.JPEG": jpeg(picture(40, 300, seed=1)),
        f"{HEN}/{HEN}_3.JPEG": b"",
    }


def as_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "train" / name).write_bytes(content)
    return root


def as_tar(root: Path, files: dict[str, bytes]) -> Path:
    """Tar of tars; inner tars unordered, as nothing promises their order."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for name in reversed(sorted({name.split("/")[0] for name in files})):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for key in reversed(sorted(files)):
                    if key.startswith(name):
                        add(inner, key.split("/")[1], files[key])
            add(outer, f"{name}.tar", buffer.getvalue())
    return root


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("layout", [as_folder, as_tar])
def test_imagenet_with_odd_files_is_read_and_every_bad_file_is_named(tmp_path: Path, layout) -> None:
    source = open_source("folder", layout(tmp_path, imagenet_files()), size=32)
    index = source.index("train")
    assert [key.removeprefix("train/") for key, _ in index] == sorted(imagenet_files())
    assert [label for _, label in index] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert source.class_names == [FISH, SHARK, HEN]

    loaded = source.load([key for key, _ in index])
    assert [Path(key).stem for key, _ in loaded.problems] == [f"{FISH}_2", f"{HEN}_1", f"{HEN}_3"]
    assert "truncated" in loaded.problems[0][1]
    assert all("\n" not in reason and reason for _, reason in loaded.problems)
    assert loaded.positions.tolist() == [0, 2, 3, 4, 6]
    assert loaded.images.shape == (5, 32, 32, 3)
    assert loaded.images.dtype == np.uint8

    truth = center_crop(picture(90, 70), 32).astype(int)
    plain, cmyk, by_content, grey, _ = loaded.images.astype(int)
    # JPEG at quality 95 and its chroma subsampling: a few levels of 255.
    assert np.abs(plain - truth).max() <= 12
    assert np.abs(cmyk - truth).max() <= 16
    assert np.array_equal(by_content, truth)
    assert np.array_equal(grey[..., 0], grey[..., 1])
    luminance = truth @ [0.299, 0.587, 0.114]
    assert np.abs(grey[..., 0] - luminance).max() <= 12


@pytest.mark.parametrize("layout", [as_folder, as_tar])
def test_a_wrong_class_folder_is_refused(tmp_path: Path, layout) -> None:
    files = imagenet_files() | {"cats/1.JPEG": b"", "n00000000/1.JPEG": b""}
    with pytest.raises(UserError, match=r"2 class folder.*'cats', 'n00000000'"):
        open_source("folder", layout(tmp_path, files), size=32)


def test_class_folders_of_another_data_set_keep_their_own_names(tmp_path: Path) -> None:
    source = open_source("folder", as_folder(tmp_path, {"dog/b.png": b"", "cat/a.png": b""}), size=8)
    assert source.class_names == ["cat", "dog"]
    assert source.index("train") == [("train/cat/a.png", 0), ("train/dog/b.png", 1)]
    assert source.index("heldout") == []


def test_held_out_images_keep_the_labels_of_train(tmp_path: Path) -> None:
    as_folder(tmp_path, imagenet_files())
    (tmp_path / "val" / HEN).mkdir(parents=True)
    (tmp_path / "val" / HEN / "x.JPEG").write_bytes(jpeg(picture(32, 32)))
    source = open_source("folder", tmp_path, size=32)
    assert source.index("heldout") == [(f"val/{HEN}/x.JPEG", 2)]
    assert len(source.load([f"val/{HEN}/x.JPEG"]).images) == 1
    (tmp_path / "val" / "n02123045").mkdir()
    with pytest.raises(UserError, match="n02123045"):
        open_source("folder", tmp_path, size=32)


def devkit(root: Path, labels: list[int]) -> None:
    """As in the official devkit: WordNet ids by number in a MATLAB table, one number per held-out image."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    table = np.array([(1, HEN, "a"), (2, FISH, "b"), (3, SHARK, "c")], dtype=kinds)
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": table})
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", buffer.getvalue())
        text = "".join(f"{label}\n" for label in labels).encode()
        add(tar, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", text)


def test_official_held_out_tar_has_its_labels_from_the_devkit(tmp_path: Path) -> None:
    as_tar(tmp_path, imagenet_files())
    assert open_source("folder", tmp_path, size=32).index("heldout") == []
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        for number in (2, 1, 3):
            add(tar, f"ILSVRC2012_val_0000000{number}.JPEG", png(picture(32, 32, seed=number)))
    source = open_source("folder", tmp_path, size=32)
    with pytest.raises(UserError, match="devkit"):
        source.index("heldout")
    devkit(tmp_path, [2, 1, 3])
    index = source.index("heldout")
    assert index == [(f"val/ILSVRC2012_val_0000000{n}.JPEG", label) for n, label in ((1, 0), (2, 2), (3, 1))]
    loaded = source.load([index[2][0], f"{FISH}/{FISH}_1.JPEG", index[0][0]])
    assert np.array_equal(loaded.images[0], np.asarray(picture(32, 32, seed=3)))
    assert np.array_equal(loaded.images[2], np.asarray(picture(32, 32, seed=1)))
    devkit(tmp_path, [2, 1])
    with pytest.raises(UserError, match="3 images, but the devkit 2 labels"):
        source.index("heldout")


def test_a_file_that_vanished_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    source = open_source("folder", as_folder(tmp_path, imagenet_files()), size=32)
    loaded = source.load([f"train/{FISH}/gone.JPEG"])
    assert loaded.problems == [(f"train/{FISH}/gone.JPEG", "No such file or directory")]
    assert loaded.images.shape == (0, 32, 32, 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and holds none."""
    content = bytearray(png(picture(1, 1)))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def odd_entries(folder: Path) -> dict[str, str]:
    """Put what is no picture of a sane size into a class folder; the reason to be given of each."""
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "dangling.png").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.png"))
    with open(folder / "sparse.png", "wb") as file:
        file.truncate(2**40)
    (folder / "huge.png").write_bytes(bomb(30_000, 3_000))
    (folder / "bomb.png").write_bytes(bomb(60_000, 60_000))
    (folder / "wide.png").write_bytes(png(picture(20_000, 1)))
    (folder / "tall.png").write_bytes(png(picture(1, 20_000)))
    return {
        "pipe.png": "not a regular file",
        "device.png": "not a regular file",
        "loop.png": "Too many levels of symbolic links",
        "dangling.png": "No such file or directory",
        "socket.png": "not a regular file",
        "sparse.png": "1,099,511,627,776 bytes, expected at most 536,870,912",
        "huge.png": "30000x3000 pixels, expected at most 89,478,485 in all",
        "bomb.png": "exceeds limit",
        "wide.png": "20000x1 pixels, expected sides that differ by a factor of at most 100",
        "tall.png": "1x20000 pixels, expected sides that differ by a factor of at most 100",
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_would_hang_or_fill_the_memory_is_left_out_with_its_reason(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    odd = odd_entries(tmp_path / "train" / "cats")
    (tmp_path / "elsewhere.png").write_bytes(png(picture(40, 40)))
    (tmp_path / "train" / "cats" / "zz_link.png").symlink_to("../../elsewhere.png")
    (tmp_path / "train" / "cats" / "zz_long.png").write_bytes(png(picture(3_200, 32)))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, hard))
    try:
        source = open_source("folder", tmp_path, size=256)
        keys = [key for key, _ in source.index("train")]
        loaded = source.load(keys)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    reasons = {Path(key).name: reason for key, reason in loaded.problems}
    assert reasons.keys() == odd.keys()
    assert [name for name, reason in odd.items() if reason not in reasons[name]] == []
    assert [Path(keys[place]).name for place in loaded.positions] == ["zz_link.png", "zz_long.png"]
    assert np.array_equal(loaded.images[0], center_crop(picture(40, 40), 256))


def test_a_broken_tar_and_an_empty_folder_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither train/"):
        open_source("folder", tmp_path, size=32)
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match="no whole tar"):
        open_source("folder", tmp_path, size=32)
    with pytest.raises(UserError, match="needs the folder"):
        open_source("folder", tmp_path / "nowhere", size=32)


def test_the_count_of_images_is_checked() -> None:
    check_count(1_281_167, 0, 1_281_167, "x")
    check_count(5, 3, None, "x")
    with pytest.raises(UserError, match=r"x has 1,281,165 readable images \(2 unreadable\), expected 1,281,167"):
        check_count(1_281_167, 2, 1_281_167, "x")


def test_the_crop_is_the_middle_of_the_image() -> None:
    """At the exact size nothing is resampled, so the crop is a plain slice."""
    image = picture(100, 64)
    assert np.array_equal(center_crop(image, 64), np.asarray(image)[:, 18:82])
    assert np.array_equal(center_crop(image.rotate(90, expand=True), 64), np.rot90(np.asarray(image)[:, 18:82]))


def test_the_crop_halves_with_a_box_before_the_bicubic_step() -> None:
    """A side of exactly twice the size: the crop is the mean of 2x2 pixels, which bicubic alone is not."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    means = noise.reshape(32, 2, 32, 2, 3).mean((1, 3))
    # Pillow rounds after each direction: at most 1 level; bicubic alone is off by dozens.
    assert np.abs(center_crop(Image.fromarray(noise), 32) - means).max() <= 1


def test_the_crop_of_a_small_image_is_scaled_up() -> None:
    assert center_crop(picture(20, 31), 32).shape == (32, 32, 3)
    assert center_crop(picture(33, 1000), 32).shape == (32, 32, 3)


def test_digits_are_split_once_and_for_all() -> None:
    source = open_source("digits", None, size=16, held_out=0.2, seed=0)
    train, heldout = source.index("train"), source.index("heldout")
    assert (len(train), len(heldout)) == (1438, 359)
    assert {key for key, _ in train}.isdisjoint({key for key, _ in heldout})
    assert train == open_source("digits", None, size=16).index("train")
    assert train != open_source("digits", None, size=16, seed=1).index("train")
    labels = load_digits().target
    assert all(labels[int(key)] == label for key, label in train + heldout)


def test_digits_keep_their_pixels() -> None:
    keys = ["0000", "0007", "1796"]
    exact = open_source("digits", None, size=8).load(keys).images
    truth = load_digits().images[[0, 7, 1796]] * (255 / 16)
    assert np.array_equal(exact, np.repeat(truth.round().astype(np.uint8)[..., None], 3, axis=3))
    twice = open_source("digits", None, size=16).load(keys).images
    assert twice.shape == (3, 16, 16, 3)
    # Bicubic weights sum to 1; clipping at 0 and 255 and the borders keep this from being exact.
    assert twice.mean() == pytest.approx(truth.mean(), rel=0.03)


def cifar10_folder(root: Path, rows: int = 4) -> np.ndarray:
    """A small set in the binary layout; returns the test images."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]:
        images = rng.integers(0, 256, (rows, 32, 32, 3)).astype(np.uint8)
        labels = rng.integers(0, 10, (rows, 1)).astype(np.uint8)
        np.concatenate([labels, images.transpose(0, 3, 1, 2).reshape(rows, -1)], 1).tofile(folder / name)
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "batches.meta.txt").write_text(names.replace(" ", "\n") + "\n")
    return images


def test_cifar10_is_read_from_its_binary_files(tmp_path: Path) -> None:
    images = cifar10_folder(tmp_path)
    source = open_source("cifar10", tmp_path, size=32)
    assert len(source.class_names) == 10
    assert len(source.index("train")) == 20
    keys = [key for key, _ in source.index("heldout")]
    assert np.array_equal(source.load(keys).images, images)
    assert open_source("cifar10", tmp_path, size=16).load(keys).images.shape == (4, 16, 16, 3)


def test_cifar10_is_never_downloaded_and_never_half_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cifar-10-batches-bin"):
        open_source("cifar10", tmp_path, size=32)
    cifar10_folder(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").write_bytes(b"x" * 5000)
    with pytest.raises(UserError, match=r"data_batch_3\.bin"):
        open_source("cifar10", tmp_path, size=32)


def test_python_files_of_cifar10_that_are_not_the_originals_are_not_opened(tmp_path: Path) -> None:
    """They are pickles: only files with the official MD5 may be unpickled."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"x")
    with pytest.raises(UserError, match="MD5"):
        open_source("cifar10", tmp_path, size=32)


def test_folders_below_a_class_belong_to_it_and_what_is_left_out_is_said(tmp_path: Path, caplog) -> None:
    files = {"cat/a.png": b"", "cat/below/deep/b.png": b"", "dog/c.png": b"", "dog/.DS_Store": b"", "notes.txt": b""}
    as_folder(tmp_path, files)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").touch()
    (tmp_path / "train" / "elk").symlink_to(tmp_path / "elsewhere")  # a class that is a link
    (tmp_path / "train" / "cat" / "up").symlink_to("..")  # a loop
    source = open_source("folder", tmp_path, size=8)
    assert source.class_names == ["cat", "dog", "elk"]
    keys = ["cat/a.png", "cat/below/deep/b.png", "cat/up", "dog/c.png", "elk/d.png"]
    assert source.index("train") == [(f"train/{key}", label) for key, label in zip(keys, [0, 0, 0, 1, 2], strict=True)]
    assert "left out 2 name(s) that are hidden or lie beside the class folders: dog/.DS_Store, notes.txt" in caplog.text


def test_a_listing_changes_when_an_image_comes_or_goes_or_is_renamed(tmp_path: Path) -> None:
    as_folder(tmp_path, {"cat/a.png": b"", "dog/b.png": b""})
    first = listing(tmp_path, "train")
    os.utime(tmp_path / "train" / "cat" / "a.png", (0, 0))
    assert listing(tmp_path, "train") == first
    found = {first, listing(tmp_path, "heldout")}
    (tmp_path / "train" / "cat" / "below").mkdir()
    assert listing(tmp_path, "train") == first
    (tmp_path / "train" / "cat" / "below" / "c.png").touch()
    found.add(listing(tmp_path, "train"))
    (tmp_path / "train" / "dog" / "b.png").rename(tmp_path / "train" / "dog" / "c.png")
    found.add(listing(tmp_path, "train"))
    as_tar(tmp_path, imagenet_files())
    found.add(listing(tmp_path, "train"))
    assert len(found) == 5


def make_split(data: Path, made: Path, shards: int) -> dict:
    """The manifest of the train split through all image stages."""
    chosen = Images(dataset="folder", path=data, size=32, shards=shards)
    write_image_index(chosen, "train", made / "train.csv")
    files = [made / f"{shard}.safetensors" for shard in range(shards)]
    for shard, file in enumerate(files):
        write_image_shard(chosen, made / "train.csv", shard, shards, file)
    write_image_manifest(chosen, made / "train.csv", files, made / "train.json", made / "corrupt.csv")
    return read_json(made / "train.json")


def test_unreadable_images_are_counted_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    as_folder(tmp_path / "data", imagenet_files())
    first, again = (make_split(tmp_path / "data", tmp_path / name, shards=2) for name in ("first", "again"))
    assert (first["listed"], first["corrupt"], first["count"], first["per_class"]) == (8, 3, 5, [2, 2, 1])
    assert [entry["sha256"] for entry in first["shards"]] == [entry["sha256"] for entry in again["shards"]]
    assert (tmp_path / "first" / "corrupt.csv").read_bytes() == (tmp_path / "again" / "corrupt.csv").read_bytes()


def test_names_that_are_no_text_come_through_all_stages(tmp_path: Path) -> None:
    names = ["a\nb.png", "a,b.png", '"quoted".png', os.fsdecode(b"\xff.png"), "a\r.png", " .png", "\u202e.png"]
    as_folder(tmp_path / "data", {f"cat/{name}": png(picture(40, 40)) for name in names})
    as_folder(tmp_path / "data", {f"cat/bad {name}": b"" for name in names})
    manifest = make_split(tmp_path / "data", tmp_path / "made", shards=3)
    assert (manifest["count"], manifest["corrupt"]) == (len(names), len(names))
    with open(tmp_path / "made" / "corrupt.csv", newline="", errors="surrogateescape") as file:
        assert {row["key"] for row in csv.DictReader(file)} == {f"train/cat/bad {name}" for name in names}


@pytest.mark.parametrize("name, content", [("a class without images", None), ("a class that cannot be read", b"x")])
def test_a_class_without_a_readable_image_is_refused_by_name(tmp_path: Path, name: str, content: bytes | None) -> None:
    as_folder(tmp_path / "data", {f"{one}/{k}.png": png(picture(40, 40)) for one in ("cat", "dog") for k in range(2)})
    (tmp_path / "data" / "train" / name).mkdir()
    if content is not None:
        (tmp_path / "data" / "train" / name / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=f"no readable image of class '{name}'"):
        make_split(tmp_path / "data", tmp_path / "made", shards=1)
    assert not (tmp_path / "made" / "train.json").exists()


def zeroed(file: Path, start: int) -> None:
    with open(file, "r+b") as opened:
        opened.seek(start)
        opened.write(bytes(tarfile.BLOCKSIZE))


def test_a_tar_whose_list_ends_before_the_file_is_not_whole(tmp_path: Path) -> None:
    """tarfile takes a zeroed or cut header for the end, and gives the classes before it without a word."""
    as_tar(tmp_path, imagenet_files())
    file = tmp_path / "ILSVRC2012_img_train.tar"
    with tarfile.open(file) as tar:
        places = [member.offset for member in tar]
        inner = tar.getmembers()[0]
        with tarfile.open(fileobj=tar.extractfile(inner)) as one:
            second = inner.offset_data + one.getmembers()[1].offset
    whole = file.read_bytes()
    for place in places:
        zeroed(file, place)
        with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar is no whole tar file"):
            open_source("folder", tmp_path, size=32)
        file.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar is no whole tar file"):
            open_source("folder", tmp_path, size=32)
        file.write_bytes(whole)
    zeroed(file, second)
    source = open_source("folder", tmp_path, size=32)
    with pytest.raises(UserError, match=rf"{HEN}\.tar inside .* is no whole tar file"):
        source.index("train")
