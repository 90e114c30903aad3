"""Any flow-matching pipeline of diffusers on this machine: opened, called for one picture, its scheduler replaced."""

import inspect
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from jaxtyping import UInt8

from stablevelocity import schedulers
from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.pretrained.families import FAMILIES, Family
from stablevelocity.pretrained.scenes import FRAMES, SIZE
from stablevelocity.tuning.trajectory import Trajectory, record

_EULER = schedulers.StableVSFlowMatchEulerScheduler
_MULTISTEP = (schedulers.StableVSDPMSolverMultistepScheduler, schedulers.StableVSUniPCMultistepScheduler)
#: StableVS over the same base, by the class of a pipeline's scheduler: the stock one, its control arm, or itself.
STABLEVS: dict[str, Any] = {
    kind.__name__: made
    for made in (_EULER, *_MULTISTEP)
    for kind in made.__mro__
    if kind.__name__.endswith("Scheduler")
}


@dataclass(frozen=True)
class Sample:
    """One picture, uint8 (H, W, 3) or a video's frames (T, H, W, 3), with what it took."""

    picture: UInt8[np.ndarray, "..."]
    calls: int
    seconds: float
    trajectory: Trajectory


@dataclass
class Model:
    """A pipeline with its name, and what every call of it is given: size, guidance."""

    name: str
    pipeline: Any
    family: Family | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stock = self.pipeline.scheduler
        kind = type(self.stock).__name__
        if kind not in STABLEVS:
            known = ", ".join(name for name in STABLEVS if not name.startswith(("StableVS", "Thinned")))
            raise UserError(f"{self.name}: scheduler {kind} is none that StableVS has a form of; expected {known}")
        self.stablevs = STABLEVS[kind]

    def scheduler(self, **options: Any) -> Any:
        """StableVS over the pipeline's own base; `enabled=False` is the base itself, bit for bit."""
        return self.stablevs.from_config(self.stock.config, **options)

    def sample(self, prompt: str, seed: int, steps: int, **options: Any) -> Sample:
        """One picture of the noise of `seed`; `steps` is what the pipeline is asked for, `options` the scheduler's."""
        self.pipeline.scheduler = self.scheduler(**options)
        started = time.perf_counter()
        try:
            with record(self.pipeline.scheduler) as recording:
                result = self.pipeline(
                    **self._text(prompt),
                    **self.arguments,
                    num_inference_steps=steps,
                    generator=torch.Generator().manual_seed(seed),
                    output_type="np",
                )
        except ValueError as error:  # of a pipeline's own check, of the size and the like
            if traceback.extract_tb(error.__traceback__)[-1].name != "check_inputs":
                raise
            raise UserError(f"{self.name}: {' '.join(str(error).split())}") from None
        finally:
            self.pipeline.scheduler = self.stock
        seconds = time.perf_counter() - started  # numpy pictures are on the host, so the device is done
        values = np.asarray(result.frames if hasattr(result, "frames") else result.images)[0]
        picture = (values * 255).round().clip(0, 255).astype(np.uint8)
        return Sample(picture, recording.calls, seconds, recording.trajectory())

    def _text(self, prompt: str) -> dict[str, Any]:
        if self.family is not None:
            text = self.family.text_arguments([prompt], getattr(self.pipeline, "text_encoder", None) is not None)
            # Embeddings stand for what text encoders of the pipeline's dtype would give; masks are whole numbers.
            dtype = self.pipeline.dtype
            floats = {key: v.to(dtype) for key, v in text.items() if torch.is_tensor(v) and v.is_floating_point()}
            return text | floats
        return {"prompt": [prompt]}


def open_model(
    name: str,
    *,
    height: int | None = None,
    width: int | None = None,
    guidance: float | None = None,
    dtype: str | None = None,
) -> Model:
    """A family's name, a folder in diffusers' layout, or a hub id in the local cache; nothing is downloaded.

    Size and guidance are the family's where its own model is meant, else the pipeline's defaults. Without text encoders
    only the four families' classes can be called (docs/schedulers.md). Raises UserError in one line.
    """
    own = next((family for family in FAMILIES.values() if name in (family.name, family.hub_id)), None)
    folder = own.locate() if own else _locate(name)
    index = read_json(folder / "model_index.json")
    family = own or next((f for f in FAMILIES.values() if f.pipeline == index["_class_name"]), None)
    absent = {part: None for part, entry in index.items() if isinstance(entry, list) and entry[0] is None}
    without_text = "text_encoder" in absent
    if without_text and family is None:
        raise UserError(f"{name}: {index['_class_name']} without text encoders; embeddings are known for no such class")
    usual = "float32" if without_text or not torch.cuda.is_available() else "bfloat16"
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise UserError(f"--dtype {dtype}: expected float32, bfloat16 or float16")
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder, dtype=getattr(torch, dtype or usual), local_files_only=True, **absent
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: {folder} is not a whole pipeline: {str(error).strip().splitlines()[0]}") from None
    arguments: dict[str, Any] = {}
    key = "guidance_scale"
    if family and without_text:
        arguments = {"height": SIZE, "width": SIZE, **family.tiny_guidance}
        arguments |= {"num_frames": FRAMES} if family.is_video else {}
    elif own:
        arguments = {"height": own.size[0], "width": own.size[1], **own.guidance}
        arguments |= {"num_frames": own.frames} if own.is_video else {}
    if family:
        key = next(iter(family.tiny_guidance if without_text else family.guidance), key)
    given = {"height": height, "width": width, key: guidance}
    arguments |= {option: value for option, value in given.items() if value is not None}
    unknown = [option for option in arguments if option not in inspect.signature(type(pipeline).__call__).parameters]
    if unknown:
        raise UserError(f"{name}: {type(pipeline).__name__} takes no {unknown[0]}; leave it out")
    return Model(name, pipeline, family, arguments)


def _locate(name: str) -> Path:
    folder = Path(name)
    if not folder.is_dir() and name.count("/") == 1:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except LocalEntryNotFoundError:
            raise UserError(
                f"{name}: neither a folder nor in the hub's cache of this machine; "
                f"to download it: stablevelocity download {name} --revision <commit>"
            ) from None
    if not (folder / "model_index.json").is_file():
        known = ", ".join(FAMILIES)
        raise UserError(f"{name}: expected a pipeline folder (with model_index.json), a hub id, or one of {known}")
    return folder
