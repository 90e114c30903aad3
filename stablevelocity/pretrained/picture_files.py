"""Pictures on disk, in the folder layouts that the official scorers of both benchmarks read."""

from pathlib import Path

import numpy as np
from PIL import Image

from stablevelocity.data.shards import read_shard, write_shard
from stablevelocity.evaluation.geneval import image_folder, write_metadata
from stablevelocity.evaluation.t2v_compbench import video_path
from stablevelocity.files import atomic_write
from stablevelocity.pretrained.families import Family
from stablevelocity.pretrained.prompts import Requirement


def save_picture(
    family: Family, output: Path, prompt: int, image: int, requirement: Requirement, picture: np.ndarray
) -> None:
    """One image (H, W, 3) as PNG, or one video (T, H, W, 3) as mp4 and, since mp4 loses detail, exact frames."""
    if not family.is_video:
        with atomic_write(write_metadata(output, prompt, requirement) / f"{image:04d}.png") as temporary:
            Image.fromarray(picture).save(temporary)
        return
    path = video_path(output, requirement["tag"], prompt)
    path = path if image == 0 else path.with_stem(f"{path.stem}-{image}")
    write_shard(_frames_path(output, requirement["tag"], prompt, image), {"frames": picture})
    write_video(path, picture, family.fps)


def read_pictures(
    family: Family, output: Path, prompts: list[Requirement], images: int, chosen: list[int] | None = None
) -> np.ndarray:
    """Pictures of an arm in order of (prompt, image): (N, [T,] H, W, 3) uint8; all prompts, or the `chosen`."""
    found = []
    for p in range(len(prompts)) if chosen is None else chosen:
        requirement = prompts[p]
        for i in range(images):
            if family.is_video:
                found.append(np.array(read_shard(_frames_path(output, requirement["tag"], p, i))["frames"]))
            else:
                path = image_folder(output, p) / "samples" / f"{i:04d}.png"
                found.append(np.asarray(Image.open(path).convert("RGB")))
    return np.stack(found)


def write_comparison(folder: Path, arms: list[np.ndarray], fps: int) -> None:
    """`comparison.mp4` and an animated preview `comparison.gif`: a row per video, a column per arm.

    `arms` are equally many videos each (N, T, H, W, 3) uint8, of the same prompts and noise. Each play of the preview
    starts over after a short stop.
    """
    together = np.stack(arms, axis=1)
    count, columns, frames, height, width, _ = together.shape
    sheet = together.transpose(2, 0, 3, 1, 4, 5).reshape(frames, count * height, columns * width, 3)
    write_video(folder / "comparison.mp4", sheet, fps)
    factor = max(1, 256 // sheet.shape[2])
    pictures = [Image.fromarray(frame.repeat(factor, 0).repeat(factor, 1)) for frame in sheet]
    stay = [1000 // fps] * (frames - 1) + [800]
    with atomic_write(folder / "comparison.gif") as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=stay, loop=0)


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """An mp4 file (H.264); tiny frames are enlarged to 256 pixels, which players and codecs are made for."""
    import imageio.v3 as iio

    factor = max(1, 256 // frames.shape[2])
    large = frames.repeat(factor, 1).repeat(factor, 2)
    with atomic_write(path) as temporary:
        iio.imwrite(temporary, large, fps=fps, codec="libx264", macro_block_size=2, output_params=["-crf", "12"])


def _frames_path(output: Path, category: str, prompt: int, image: int) -> Path:
    return output / "frames" / category / f"{prompt + 1:04d}-{image}.safetensors"
