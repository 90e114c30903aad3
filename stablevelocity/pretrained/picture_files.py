"""Pictures on disk, in the folder layouts that the official scorers of both benchmarks read."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from stablevelocity.data.shards import read_shard, write_shard
from stablevelocity.files import atomic_write
from stablevelocity.pretrained.benchmarks.geneval import image_folder, write_metadata
from stablevelocity.pretrained.benchmarks.t2v_compbench import video_path
from stablevelocity.pretrained.families import Family
from stablevelocity.pretrained.prompts import Requirement

#: Of each side-by-side file: they stand in the report and in its committed copy.
PREVIEW_BYTES = 500_000


def picture_paths(family: Family, output: Path, prompt: int, image: int, requirement: Requirement) -> list[Path]:
    """All files of one picture: its PNG and metadata, or its mp4 and exact frames."""
    if not family.is_video:
        folder = image_folder(output, prompt)
        return [folder / "samples" / f"{image:04d}.png", folder / "metadata.jsonl"]
    # The official scorer reads a whole folder and counts its files, so it holds one video per prompt.
    category = requirement["tag"] if image == 0 else f"{requirement['tag']}-{image}"
    path = video_path(output, category, prompt)
    return [path, output / "frames" / requirement["tag"] / f"{prompt + 1:04d}-{image}.safetensors"]


def save_picture(
    family: Family, output: Path, prompt: int, image: int, requirement: Requirement, picture: np.ndarray
) -> None:
    """One image (H, W, 3) as PNG, or one video (T, H, W, 3) as mp4 and, since mp4 loses detail, exact frames."""
    path, beside = picture_paths(family, output, prompt, image, requirement)
    if family.is_video:
        write_shard(beside, {"frames": picture})
        write_video(path, picture, family.fps)
        return
    write_metadata(output, prompt, requirement)
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary)


def read_pictures(
    family: Family, output: Path, prompts: list[Requirement], images: int, chosen: list[int] | None = None
) -> np.ndarray:
    """Pictures of an arm in order of (prompt, image): (N, [T,] H, W, 3) uint8; all prompts, or the `chosen`."""
    pictures = []
    for p in range(len(prompts)) if chosen is None else chosen:
        for i in range(images):
            path, beside = picture_paths(family, output, p, i, prompts[p])
            if family.is_video:
                pictures.append(np.array(read_shard(beside)["frames"]))
            else:
                pictures.append(np.asarray(Image.open(path).convert("RGB")))
    return np.stack(pictures)


def write_comparison(video: Path, preview: Path, arms: list[np.ndarray], fps: int) -> None:
    """A video (mp4) and an animated preview (gif): a row per prompt, a column per arm.

    `arms` are equally many videos each (N, T, H, W, 3) uint8, of the same prompts and noise. Each play of the preview
    starts over after a short stop. Both files are for a report and a repository, so each is coarsened until it has at
    most `PREVIEW_BYTES`: the mp4 in its quality, the preview in its size and its number of frames.
    """
    together = np.stack(arms, axis=1)
    count, columns, frames, height, width, _ = together.shape
    sheet = together.transpose(2, 0, 3, 1, 4, 5).reshape(frames, count * height, columns * width, 3)
    for quality in (12, 20, 28, 36):
        write_video(video, sheet, fps, quality)
        if video.stat().st_size <= PREVIEW_BYTES:
            break
    factor = max(1, 256 // sheet.shape[2])
    pictures = [Image.fromarray(frame.repeat(factor, 0).repeat(factor, 1)) for frame in sheet]
    data, step, small = _gif(pictures, fps, 1), 1, pictures
    while len(data) > PREVIEW_BYTES and min(small[0].size) > 64:
        # Half the frames first, while a second still has eight.
        if fps / step >= 16:
            step *= 2
        else:
            small = [picture.resize((picture.width * 3 // 4, picture.height * 3 // 4)) for picture in small]
        data = _gif(small[::step], fps, step)
    with atomic_write(preview) as temporary:
        temporary.write_bytes(data)


def _gif(pictures: list[Image.Image], fps: int, step: int) -> bytes:
    """An endless animation of every `step`-th frame of a video of `fps` frames a second."""
    stay = [1000 * step // fps] * (len(pictures) - 1) + [800]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=stay, loop=0)
    return file.getvalue()


def shrink(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures (..., H, W, 3) uint8 whose longer side is at most `side`; smaller ones as they are."""
    height, width = pictures.shape[-3:-1]
    if max(height, width) <= side:
        return pictures
    size = (max(1, width * side // max(height, width)), max(1, height * side // max(height, width)))
    flat = [np.asarray(Image.fromarray(p).resize(size)) for p in pictures.reshape(-1, height, width, 3)]
    return np.stack(flat).reshape(*pictures.shape[:-3], size[1], size[0], 3)


def write_video(path: Path, frames: np.ndarray, fps: int, quality: int = 12) -> None:
    """An mp4 file (H.264); tiny frames are enlarged to 256 pixels, which players and codecs are made for.

    `quality` is H.264's rate factor: 12 is hardly told from the frames, 36 is poor.
    """
    import imageio.v3 as iio

    factor = max(1, 256 // frames.shape[2])
    large = frames.repeat(factor, 1).repeat(factor, 2)
    rate = ["-crf", str(quality)]
    with atomic_write(path) as temporary:
        iio.imwrite(temporary, large, fps=fps, codec="libx264", macro_block_size=2, output_params=rate)
