"""The four large models of the paper's tables, each one entry: where it is, how it is called, its schedule.

Settings: docs/paper.md#stablevs. A family is loaded from the hub's local cache at a pinned revision, or from a folder
in diffusers' layout; the tiny models trained here are such folders, so both go the same way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.study.pretrained_settings import BASE_STEPS, SOLVERS

# torch and diffusers, seconds each, are imported where a model is loaded: that there is none is said at once.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

Solver = Literal["euler", "dpm", "unipc"]
Low = Literal["base", "stablevs", "control"]

#: By solver, the names of both its schedulers but for what comes first.
SCHEDULERS = {
    "euler": "FlowMatchEulerScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
#: Extra config that turns a stock flow-matching config into the one of each solver.
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "solver_order": 2}


@dataclass(frozen=True)
class Arm:
    """One way to sample: a base solver, its number of base steps, and what happens below xi.

    `base` keeps the whole grid; `stablevs` and `control` thin it below `xi` to `low_steps`, the one with the
    closed-form step, the other with the base solver's own.
    """

    solver: Solver
    low: Low
    steps: int
    xi: float = 0.85
    low_steps: int = 9
    noise_factor: float = 0.0

    def scheduler(self, config: Any) -> Any:
        """From the stock config of the pipeline; `enabled=False` equals the stock class bit for bit."""
        from stablevelocity import schedulers

        options: dict[str, Any] = {"xi": self.xi, "low_steps": self.low_steps, "enabled": self.low != "base"}
        if self.low != "control":
            options["noise_factor"] = self.noise_factor
        if self.solver != "euler":
            options |= _FLOW
            if "shift" in config:
                options["flow_shift"] = config["shift"]
        if self.solver == "dpm":
            options |= {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"}
        if self.solver == "unipc":
            options["solver_type"] = "bh2"
        kind = "Thinned" if self.low == "control" else "StableVS"
        return getattr(schedulers, kind + SCHEDULERS[self.solver]).from_config(config, **options)


@dataclass(frozen=True)
class Family:
    """A model of the paper.

    `scheduler` holds what decides its base schedule, by the names of its scheduler's config: with other values the same
    number of steps stands elsewhere, and the paper's budgets do not hold. `pipeline` is the name of diffusers' class,
    `dtype` that of torch's type; `guidance` holds the pipeline's own names for its guidance; `size` is (height, width)
    in pixels; `fps` is for the video file. `gate` says what the hub asks for first. Solvers and steps stand in
    `settings`.
    """

    name: str
    title: str
    hub_id: str
    revision: str
    pipeline: str
    scheduler: dict[str, Any]
    guidance: dict[str, Any]
    embeddings: Callable[[list[str]], dict[str, Tensor]]
    size: tuple[int, int] = (1024, 1024)
    negative_prompt: str | None = None
    frames: int | None = None
    fps: int = 16
    dtype: str = "bfloat16"
    gate: str = "no licence gate"
    tiny_guidance: dict[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None

    @property
    def is_video(self) -> bool:
        return self.frames is not None

    def arm(self, name: str, *, xi: float = 0.85, low_steps: int = 9, noise_factor: float = 0.0) -> Arm:
        """An arm by name, such as `euler-long` or `euler-stablevs-xi0.7`. Raises UserError for one that is none."""
        solver, _, rest = name.partition("-")
        kind, _, at = rest.partition("-xi")
        if solver not in SOLVERS[self.name] or kind not in ("long", "short", "stablevs", "control"):
            known = ", ".join(f"{solver}-(long|short|stablevs|control)" for solver in SOLVERS[self.name])
            raise UserError(f"{self.name}: arm {name!r}; expected one of {known}")
        low: Any = kind if kind in ("stablevs", "control") else "base"
        long, short = BASE_STEPS[self.name]
        steps = short if kind == "short" else long
        noise = noise_factor if kind == "stablevs" else 0.0
        return Arm(cast(Solver, solver), low, steps, float(at) if at else xi, low_steps, noise)

    def text_arguments(self, prompts: list[str], with_encoders: bool) -> dict[str, Any]:
        """What the pipeline's call needs to know of the prompts: words, or embeddings where it has no encoders."""
        if not with_encoders:
            return dict(self.embeddings(prompts))
        arguments: dict[str, Any] = {"prompt": prompts}
        if self.negative_prompt is not None:
            arguments["negative_prompt"] = [self.negative_prompt] * len(prompts)
        if self.max_tokens is not None:
            arguments["max_sequence_length"] = self.max_tokens
        return arguments

    def locate(self, folder: Path | None = None) -> Path:
        """The pipeline's folder: `folder`, or that in the hub's cache. Raises UserError where there is none here."""
        source = folder if folder is not None else self._snapshot()
        if not (source / "model_index.json").is_file():
            raise UserError(f"{self.name}: {source} is not a whole pipeline folder: it has no model_index.json")
        return source

    def load(self, folder: Path | None = None, dtype: torch.dtype | None = None) -> Any:
        """The pipeline in `locate(folder)`; a warning where an original's base schedule is not the paper's.

        Raises UserError as `locate`, and for a folder that lacks parts.
        """
        source = self.locate(folder)
        import diffusers
        import torch

        try:
            index = read_json(source / "model_index.json")
            # Parts that were saved as absent must be passed as absent.
            absent = {name: None for name, entry in index.items() if isinstance(entry, list) and entry[0] is None}
            # The word encoder that stands for absent ones speaks float32.
            usual = torch.float32 if "text_encoder" in absent else getattr(torch, self.dtype)
            pipeline: Any = getattr(diffusers, self.pipeline).from_pretrained(
                source, dtype=dtype or usual, local_files_only=True, **absent
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{self.name}: {source} is not a whole pipeline folder: {reason}") from None
        # A tiny model, which has no encoders, scales its range of tokens instead.
        others = self.other_schedule(pipeline.scheduler.config) if pipeline.text_encoder is not None else []
        if others:
            warnings.warn(
                f"{self.name}: the base schedule of {source} is not the paper's ({', '.join(others)}), so its numbers "
                "of steps above and below xi need not be the paper's",
                stacklevel=2,
            )
        return pipeline

    def other_schedule(self, config: Any) -> list[str]:
        """What of a scheduler's config differs from `scheduler`, such as `shift 1.0 instead of 3.0`."""
        others = {key: value for key, value in self.scheduler.items() if config.get(key) != value}
        return [f"{key} {config.get(key)} instead of {value}" for key, value in others.items()]

    def _snapshot(self) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.hub_id, revision=self.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise UserError(
                f"{self.name}: {self.hub_id} at revision {self.revision} is not on this machine ({self.gate}); "
                f"to download it: stablevelocity download {self.hub_id} --revision {self.revision}"
            ) from None


def _sd3_embeddings(prompts: list[str]) -> dict[str, Tensor]:
    from stablevelocity.pretrained.words import pooled

    embeddings = _wan_embeddings(prompts)
    return embeddings | {name.replace("prompt", "pooled_prompt"): pooled(words) for name, words in embeddings.items()}


def _qwen_embeddings(prompts: list[str]) -> dict[str, Tensor]:
    import torch

    embeddings = _wan_embeddings(prompts)
    mask = torch.ones(embeddings["prompt_embeds"].shape[:2], dtype=torch.long)
    return embeddings | {f"{name}_mask": mask for name in embeddings}


def _wan_embeddings(prompts: list[str]) -> dict[str, Tensor]:
    """Of the prompts, and of as many empty ones."""
    from stablevelocity.pretrained.words import encode_words

    return {"prompt_embeds": encode_words(prompts), "negative_prompt_embeds": encode_words([""] * len(prompts))}


_DYNAMIC = {  # shift of Flux and Qwen-Image
    "use_dynamic_shifting": True,
    "time_shift_type": "exponential",
    "base_shift": 0.5,
    "base_image_seq_len": 256,
}
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="sd35",
            title="SD3.5-Large",
            hub_id="stabilityai/stable-diffusion-3.5-large",
            revision="ceddf0a7fdf2064ea28e2213e3b84e4afa170a0f",
            pipeline="StableDiffusion3Pipeline",
            scheduler={"shift": 3.0, "use_dynamic_shifting": False},
            guidance={"guidance_scale": 4.5},
            tiny_guidance={"guidance_scale": 3.0},
            negative_prompt="",
            gate="gated: accept the Stability AI Community Licence on its model page and log in first",
            embeddings=_sd3_embeddings,
        ),
        Family(
            name="flux",
            title="Flux-dev",
            hub_id="black-forest-labs/FLUX.1-dev",
            revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
            pipeline="FluxPipeline",
            scheduler=_DYNAMIC | {"max_shift": 1.15, "max_image_seq_len": 4096, "shift_terminal": None},
            guidance={"guidance_scale": 3.5},
            tiny_guidance={"true_cfg_scale": 3.0},
            gate="gated: accept the FLUX.1 [dev] Non-Commercial Licence on its model page and log in first",
            embeddings=_sd3_embeddings,
            max_tokens=512,
        ),
        Family(
            name="qwen-image",
            title="Qwen-Image",
            hub_id="Qwen/Qwen-Image-2512",
            revision="25468b98e3276ca6700de15c6628e51b7de54a26",
            pipeline="QwenImagePipeline",
            scheduler=_DYNAMIC | {"max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02},
            guidance={"true_cfg_scale": 4.0},
            tiny_guidance={"true_cfg_scale": 3.0},
            # The pipeline needs some negative prompt to guide at all; a blank is what its authors pass.
            negative_prompt=" ",
            embeddings=_qwen_embeddings,
        ),
        Family(
            name="wan22",
            title="Wan2.2",
            hub_id="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            revision="5be7df9619b54f4e2667b2755bc6a756675b5cd7",
            pipeline="WanPipeline",
            scheduler=_FLOW | {"flow_shift": 3.0, "solver_type": "bh2"},
            # The paper takes the pipeline's default (docs/paper.md#stablevs), so nothing is passed.
            guidance={},
            tiny_guidance={"guidance_scale": 3.0},
            size=(480, 640),
            frames=81,
            negative_prompt="",
            embeddings=_wan_embeddings,
        ),
    )
}


def family_named(name: str) -> Family:
    """Raises UserError for a name that is none of `FAMILIES`."""
    if name not in FAMILIES:
        raise UserError(f"family {name!r}; expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
