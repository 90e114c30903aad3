"""Velocities to tune on: exact flows of Gaussian mixtures, digits networks, the four tiny models."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stablevelocity import schedulers
from stablevelocity.gmm import GaussianMixture
from stablevelocity.tuning.trajectory import record

PICTURES = 36
FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SCHEDULERS: dict[str, Any] = {
    "Euler": schedulers.StableVSFlowMatchEulerScheduler,
    "DPM-Solver++": schedulers.StableVSDPMSolverMultistepScheduler,
    "UniPC": schedulers.StableVSUniPCMultistepScheduler,
}


@dataclass(frozen=True)
class Case:
    """A velocity with the noise to start from, and the scheduler config to run it with."""

    name: str
    velocity: Callable[[Tensor, float], Tensor]
    noise: Tensor
    config: dict[str, Any]
    most_psnr: float
    mu: float | None = None

    def run(self, solver: str, steps: int, **options: Any) -> Any:
        """The recording of one run."""
        shift = self.config.get("shift", self.config.get("flow_shift", 1.0))
        config = self.config if solver == "Euler" else {**FLOW, "flow_shift": shift}
        scheduler = SCHEDULERS[solver].from_config(config, **options)
        if self.mu is None or solver != "Euler":
            scheduler.set_timesteps(steps)
        else:  # as the pipelines of Flux and Qwen-Image do
            scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=self.mu)
        x = self.noise
        with record(scheduler) as recording, torch.no_grad():
            for i, timestep in enumerate(scheduler.timesteps):
                x = scheduler.step(self.velocity(x, float(scheduler.sigmas[i])), timestep, x, return_dict=False)[0]
        return recording


#: (dimension; exponent: coordinate k has deviation k^-exponent; deviation within a mode over that of all data;
#: guidance; seed). On the first the designs were chosen; the others were run once, after that.
MIXTURES = [
    *((256, exponent, 0.1, guidance, 0) for exponent in (0.0, 1.0) for guidance in (1.0, 4.5)),
    (256, 0.5, 0.1, 1.0, 11),
    (128, 1.0, 0.3, 2.5, 12),
    (64, 0.0, 0.03, 1.0, 13),
]
NEW_MIXTURES = [
    (256, 0.7, 0.2, 3.0, 21),
    (96, 0.3, 0.05, 1.0, 22),
    (192, 1.5, 0.1, 1.5, 23),
    (128, 0.0, 0.15, 4.5, 24),
]
MODES, CLASSES = 400, 20


def mixtures(wanted: list[tuple[int, float, float, float, int]]) -> Iterator[Case]:
    for dimension, exponent, spread, guidance, seed in wanted:
        generator = torch.Generator().manual_seed(seed)
        scale = torch.arange(1, dimension + 1, dtype=torch.float64) ** -exponent
        scale = scale / scale.square().mean().sqrt()
        means = torch.randn(MODES, dimension, generator=generator, dtype=torch.float64)
        means = means * scale * math.sqrt(1 - spread**2)
        variances = (scale * spread).square().expand(MODES, dimension).contiguous()
        whole = GaussianMixture(torch.ones(MODES), means, variances)
        parts = [
            GaussianMixture(torch.ones(MODES // CLASSES), means[c::CLASSES], variances[c::CLASSES])
            for c in range(CLASSES)
        ]

        def velocity(x: Tensor, t: float, whole=whole, parts=parts, guidance=guidance) -> Tensor:
            if guidance == 1:
                return whole.velocity(x, t)
            plain, guided = whole.velocity(x, t), torch.empty_like(x)
            for c, part in enumerate(parts):
                guided[c::CLASSES] = part.velocity(x[c::CLASSES], t)
            return plain + guidance * (guided - plain)

        noise = torch.randn(PICTURES, dimension, generator=torch.Generator().manual_seed(seed + 1))
        spectrum = f"k^-{exponent:g}" if exponent else "white"
        name = f"mixture, d = {dimension}, {spectrum}, spread {spread:g}, guidance {guidance:g}"
        yield Case(name, velocity, noise, {"shift": 3.0}, 100.0)


def tiny_models(folder: Path) -> Iterator[tuple[Case, tuple[str, ...]]]:
    """The four tiny models in `folder`, guidance 3, each with the base solvers to run it by."""
    from stablevelocity.pretrained.families import FAMILIES
    from stablevelocity.pretrained.prompts import digit_prompts, digit_video_prompts
    from stablevelocity.pretrained.tiny import GRID, TINY_FAMILIES
    from stablevelocity.pretrained.words import encode_words

    for name, tiny in TINY_FAMILIES.items():
        pipeline = FAMILIES[name].load(folder / name, torch.float32)
        prompts = digit_video_prompts(PICTURES, 0) if tiny.frames else digit_prompts(PICTURES // 6 + 1, 0)
        chosen = np.random.default_rng(0).permutation(len(prompts))[:PICTURES]
        words = encode_words([prompts[i]["prompt"] for i in chosen])
        text = torch.cat([words, encode_words([""] * PICTURES)])

        def velocity(x: Tensor, t: float, tiny=tiny, network=pipeline.transformer, text=text) -> Tensor:
            guided, plain = tiny.velocity(network, torch.cat([x, x]), torch.full((2 * len(x),), t), text).chunk(2)
            return plain + 3.0 * (guided - plain)

        frames = (3,) if tiny.frames else ()
        noise = torch.randn(PICTURES, 16, *frames, 2 * GRID, 2 * GRID, generator=torch.Generator().manual_seed(1))
        config, mu = dict(pipeline.scheduler.config), None
        if config.get("use_dynamic_shifting"):
            span = config["max_image_seq_len"] - config["base_image_seq_len"]
            slope = (config["max_shift"] - config["base_shift"]) / span
            mu = config["base_shift"] + slope * (GRID**2 - config["base_image_seq_len"])
        # The multistep solvers of SD3 and Wan have the same shift; the others' dynamic shift they lack.
        solvers = (
            ("UniPC", "DPM-Solver++") if tiny.frames else ("Euler", "DPM-Solver++") if name == "sd35" else ("Euler",)
        )
        yield Case(f"tiny {name}", velocity, tiny.pack(noise), config, 60.0, mu), solvers


def digits(results: Path, seed: int) -> Iterator[Case]:
    """The SiT of the digits study's CFM and StableVM runs, guidance 1, uniform steps."""
    from stablevelocity.models.networks import load_network

    for run in (f"cfm-s{seed}", f"stablevm-s{seed}"):
        weights = next((results / "runs" / run / "weights").glob("*.safetensors"))
        model, _ = load_network(weights)
        labels = torch.arange(PICTURES) % model.num_classes

        def velocity(x: Tensor, t: float, model=model, labels=labels) -> Tensor:
            return model.velocity(x, torch.full((len(x),), t), labels)

        shape = (PICTURES, model.in_channels, model.input_size, model.input_size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
        yield Case(f"digits SiT, {run}", velocity, noise, {"shift": 1.0}, 60.0)
