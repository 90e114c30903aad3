"""One shard of images into one shard of what a network makes of them, reading and writing while it computes."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stablevelocity.data.shards import new_shard
from stablevelocity.errors import UserError
from stablevelocity.progress import Progress, log

# Images on their way at once, three times over: being read, being encoded, being written. 100 MB at 256x256.
SLICE = 512


def encode_shard(
    what: str,
    images: np.ndarray,
    encode: Callable[[np.ndarray], dict[str, np.ndarray]],
    shapes: dict[str, tuple[int, ...]],
    output: Path,
    **arrays: np.ndarray,
) -> None:
    """Write `encode(images)` in half precision, and `arrays` as they are, as one shard. Raises UserError, and writes
    nothing, where a result is not finite in half precision.

    `images` (n, ...), usually mapped from disk, are read by one thread and results are written by another while this
    one encodes, in slices, so that a shard of any size takes bounded memory. `shapes` has the shape of each result
    per image. The log says images/s and which of the three bounds them.
    """
    total = len(images)
    busy: dict[str, float] = dict.fromkeys(("reading", "encoding", "writing"), 0.0)

    def timed(stage: str, function: Callable[..., Any], *given: Any) -> Any:
        began = time.perf_counter()
        result = function(*given)
        busy[stage] += time.perf_counter() - began
        return result

    layout = {name: ((total, *shape), np.dtype(np.float16)) for name, shape in shapes.items()}
    layout |= {name: (array.shape, array.dtype) for name, array in arrays.items()}
    parts = [slice(start, min(start + SLICE, total)) for start in range(0, total, SLICE)]
    progress = Progress(what, total, "images")
    with new_shard(output, layout) as target, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        for name, array in arrays.items():
            target[name][:] = array

        def read(part: slice) -> np.ndarray:
            return np.array(images[part])

        def write(part: slice, results: dict[str, np.ndarray]) -> None:
            for name, result in results.items():
                with np.errstate(over="ignore"):  # refused in the next line
                    half = result.astype(np.float16)
                bad = ~np.isfinite(half).reshape(len(half), -1).all(axis=1)
                if bad.any():
                    largest, first = np.abs(result[bad]).max(), part.start + bad.argmax()
                    raise UserError(
                        f"{what}: {name} of {bad.sum()} images of {len(half)} is NaN or above 65,504 (half precision), "
                        f"that of image {first} first; the largest value is {largest:g}"
                    )
                target[name][part] = half

        coming = reader.submit(timed, "reading", read, parts[0])
        going: Future[None] | None = None
        for number, part in enumerate(parts):
            pixels = coming.result()
            if number + 1 < len(parts):
                coming = reader.submit(timed, "reading", read, parts[number + 1])
            results = timed("encoding", encode, pixels)
            if going is not None:
                going.result()
            going = writer.submit(timed, "writing", write, part, results)
            progress.update(len(pixels))
        if going is not None:
            going.result()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shares = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in busy.items())
    log.info(f"{what}: {progress.rate:.4g} images/s on {device}; {shares}: bound by {max(busy, key=lambda s: busy[s])}")
