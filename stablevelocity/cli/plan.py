"""What a study costs before it is run: GPU-hours, disk and wall time, by table and by arm.

Work is counted in floating-point operations of the very networks that would run (on no device), and divided by a
throughput: one that was measured, given per model in images a second, or the device's peak times the utilisation that
SiT-XL/2 reaches on an H100, in training and in sampling (benchmarks/GPU.md). Not counted: latents and features (made
once), decoding, evaluation, queues, what a failed job costs.
"""

import csv
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from stablevelocity.data.stages.images import source_of
from stablevelocity.errors import UserError
from stablevelocity.models.encoders import encoder_flops, encoder_shape, feature_bytes
from stablevelocity.models.networks import build_network
from stablevelocity.sampling.run_sampler import network_calls, sampler_times
from stablevelocity.study import Run, Study
from stablevelocity.study.methods import has_labels, kind
from stablevelocity.study.settings import Sampler

TRAINING_FORWARDS = 3  # a backward pass costs two forward passes
# Train images and classes; a folder is counted, and taken for ImageNet where it is not on this machine.
SIZES = {"digits": (1438, 10), "cifar10": (50_000, 10), "folder": (1_281_167, 1000)}
# Of 989 TFLOP/s: 546 images/s at 712 GFLOP each in training, 4.03 images of 422 passes at 237 GFLOP in sampling.
UTILISATION = 0.39
SampleSet = tuple[str, int, str]  # run, step, sampler


@dataclass(frozen=True)
class Throughput:
    """How fast one device is; where a model was measured, that takes the place of the other two."""

    peak: float = 989.0  # dense operations, 10^12 per second, at the training precision: H100 SXM, bfloat16
    utilisation: float = UTILISATION  # share of the peak that is reached (model FLOPs utilisation)
    measured: dict[str, float] = field(default_factory=dict)  # training images per second and device by model name

    def rate(self, model: str, training_flops: float) -> float:
        """Operations per second when training `model`, whose training takes `training_flops` per image."""
        if model in self.measured:
            return self.measured[model] * training_flops
        return self.peak * 1e12 * self.utilisation


@dataclass(frozen=True)
class Row:
    """Cost of one table or arm; hours are of one device, bytes stay on disk at the end."""

    name: str
    runs: int
    training_hours: float
    sampling_hours: float
    disk: int
    wall_hours: float


@dataclass(frozen=True)
class Plan:
    """`tables` share runs, so their sum exceeds `total`, where each run and each set counts once."""

    tables: list[Row]
    arms: list[Row]
    total: Row
    data: dict[str, int]  # bytes: images, latents, features
    notes: list[str]


class Planner:
    """Costs of the runs and sample sets of a study on `devices` devices, `per_run` of them for one run."""

    def __init__(self, study: Study, throughput: Throughput, *, devices: int, per_run: int) -> None:
        if not study.arms:
            raise UserError("plan: the study has no arms; expected training runs to count")
        if per_run > devices:
            raise UserError(f"plan: {per_run} devices for a run, but only {devices} in all")
        if not (0 < throughput.peak < math.inf and 0 < throughput.utilisation <= 1):
            given = f"peak {throughput.peak:g}, utilisation {throughput.utilisation:g}"
            raise UserError(f"plan: {given} given, expected a positive number of TFLOP/s and a share in (0, 1]")
        self.study, self.throughput = study, throughput
        self.devices, self.per_run = devices, per_run
        self.runs = study.runs()
        count, self.classes = SIZES[study.images.dataset]
        self.counted = study.images.path is not None and study.images.path.is_dir()
        if self.counted:
            source = source_of(study.images)
            self.classes = len(source.class_names)
            count = study.images.count or len(source.index("train"))
        self.count = study.images.count or count
        self._networks: dict[str, tuple[float, int]] = {}  # by what differs between networks

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        autoencoder = self.study.autoencoder
        halvings = 3 if autoencoder.pretrained else len(autoencoder.widths) - 1
        channels = 4 if autoencoder.pretrained else autoencoder.channels
        side = self.study.images.size // 2**halvings
        return channels, side, side

    def network(self, run: Run) -> tuple[float, int]:
        """(operations of one forward pass of one image, parameters), counted on no device."""
        settings = repr((run.training.model, run.alignment and run.alignment.projector, run.class_token))
        if settings in self._networks:
            return self._networks[settings]
        width = encoder_shape(self.study.encoder.name)[0] if run.alignment or run.class_token else None
        with torch.device("meta"):
            network = build_network(run, self.latent_shape, self.classes, width)
            inputs = [torch.empty(1, *self.latent_shape), torch.empty(1), torch.zeros(1, dtype=torch.long)]
            if run.class_token and width is not None:
                inputs.append(torch.empty(1, width))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(*inputs)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        self._networks[settings] = counter.get_total_flops(), parameters
        return self._networks[settings]

    def training_hours(self, run: Run, steps: int) -> float:
        forward, _ = self.network(run)
        flops = TRAINING_FORWARDS * forward
        rate = self.throughput.rate(model_name(run), flops)
        if run.training.gradient_checkpointing:
            flops *= 4 / 3
        if self.study.encoder.online and (run.alignment or run.class_token):
            flops += self.encoder_flops
        return steps * run.training.batch * flops / rate / 3600

    @functools.cached_property
    def encoder_flops(self) -> float:
        """Operations of the frozen encoder for one image."""
        return encoder_flops(self.study.encoder.name, self.study.encoder.grid)

    def sampling_hours(self, chosen: SampleSet) -> float:
        run = self.runs[chosen[0]]
        forward, _ = self.network(run)
        rate = self.throughput.rate(model_name(run), TRAINING_FORWARDS * forward)
        sampler = self.study.sampler(chosen[2])
        rows = self.study.sampling.images * network_rows(sampler)  # pyright: ignore[reportArgumentType] (frozen: has a hash)
        return rows * forward / rate / 3600

    def disk(self, runs: Iterable[Run], sets: Iterable[SampleSet]) -> int:
        """Checkpoints (weights, EMA, two moments, bank) of the last two and the kept steps, weights, samples."""
        total = 0
        for run in runs:
            parameters = 4 * self.network(run)[1]
            checkpoint = 4 * parameters
            if run.stablevm is not None:
                bank = run.stablevm.bank
                size = {"float32": 4, "float16": 2, "bfloat16": 2}[bank.dtype]
                rows = self.classes * bank.capacity
                rows += bank.null_capacity or rows  # by default as many of all classes
                checkpoint += rows * math.prod(self.latent_shape) * size
            total += checkpoint * (len(run.steps) + 1) + parameters * len(run.steps)
        return total + sum(1 for _ in sets) * self.study.sampling.images * 3 * self.study.images.size**2

    def row(self, name: str, sets: list[SampleSet]) -> Row:
        """Cost of some sample sets and of the training that they need."""
        steps: dict[str, int] = {}
        for run, step, _ in sets:
            steps[run] = max(step, steps.get(run, 0))
        training = {run: self.training_hours(self.runs[run], upto) for run, upto in steps.items()}
        sampling = sum(self.sampling_hours(chosen) for chosen in sets)
        wall = _makespan([hours / self.per_run for hours in training.values()], self.devices // self.per_run)
        disk = self.disk([self.runs[run] for run in steps], sets)
        return Row(name, len(steps), sum(training.values()), sampling, disk, wall + sampling / self.devices)

    def data(self) -> dict[str, int]:
        """Bytes of the shards that all runs read."""
        study, count = self.study, self.count
        sizes = {"images": count * 3 * study.images.size**2, "latents": count * 4 * math.prod(self.latent_shape)}
        if not study.encoder.online and any(run.alignment or run.class_token for run in self.runs.values()):
            width = encoder_shape(study.encoder.name)[0]
            sizes["features"] = feature_bytes(width, study.encoder.grid, count)
        return sizes


def plan(study: Study, throughput: Throughput, *, devices: int, per_run: int) -> Plan:
    """The cost of a study. Raises UserError when a run asks for more devices than there are."""
    planner = Planner(study, throughput, devices=devices, per_run=per_run)
    sets = study.sample_sets()
    arms = [planner.row(arm, [chosen for chosen in sets if planner.runs[chosen[0]].arm == arm]) for arm in study.arms]
    tables = [planner.row(name, chosen) for name, chosen in tables_of(study).items() if chosen]
    absent = study.images.path is not None and not planner.counted
    where = f" (taken for granted: {study.images.path} is not here)" if absent else ""
    notes = [f"data: {planner.count:,} train images, {planner.classes:,} classes{where}"]
    of_name: dict[str, Run] = {}
    for run in planner.runs.values():
        of_name.setdefault(model_name(run), run)
    for name, run in of_name.items():
        flops = TRAINING_FORWARDS * planner.network(run)[0]
        rate = throughput.rate(name, flops)
        source = "measured" if name in throughput.measured else f"{throughput.utilisation:.0%} of the peak"
        notes.append(
            f"{name}: {flops / 1e9:,.3g} GFLOP per image trained, {rate / flops:,.0f} images/s per device "
            f"({rate / 1e12:,.1f} TFLOP/s, {source})"
        )
    notes.append(f"wall time: on {devices} devices in all, {per_run} of them for each training run")
    return Plan(tables, arms, planner.row("whole study", sets), planner.data(), notes)


def tables_of(study: Study) -> dict[str, list[SampleSet]]:
    """Sample sets by the paper's table; of several arms of one kind and model the first is meant."""
    first: dict[tuple, str] = {}
    for name, arm in study.arms.items():
        first.setdefault((kind(arm), has_labels(study, name), study.arm_training(name).model), name)
    kinds = {name: what for (what, *_), name in first.items()}
    aligned = ("stablevm", "low (soft)"), ("cfm", "whole")
    pairs = {name for name, what in kinds.items() if (what.objective, what.regime) in aligned}
    cuts = {name for name, what in kinds.items() if what.objective == "cfm" and what.regime != "low (soft)"}
    own_model = {name for name in study.arms if study.arm_training(name).model == study.training.model}

    def of_base(names: set[str], *bases: str) -> set[str]:
        return {name for name in names if kinds[name].base in bases}

    repa = of_base(pairs, "REPA")
    variants = of_base(pairs, "REPA", "iREPA", "REG") & own_model
    regimes = of_base(cuts, "SiT", "REPA") & own_model
    main = study.sampling.main
    arm_of = {run.name: run.arm for run in study.runs().values()}
    first_step = min(run.steps[0] for run in study.runs().values())
    guided = {name for name, sampler in study.sampling.samplers.items() if sampler.guidance > 1}
    sets = study.sample_sets()
    return {
        "table 1 (guided)": [s for s in sets if s[2] in guided],
        "table 2 (model sizes)": [s for s in sets if s[2] == main and arm_of[s[0]] in repa],
        "table 3 (alignments)": [s for s in sets if s[2] == main and arm_of[s[0]] in variants and s[1] == first_step],
        "figure 3b (regimes)": [s for s in sets if s[2] == main and arm_of[s[0]] in regimes and s[1] == first_step],
    }


def model_name(run: Run) -> str:
    model = run.training.model
    return model.name or f"SiT {model.depth}x{model.width}/{model.patch}"


@functools.cache
def network_rows(sampler: Sampler) -> float:
    """Rows that pass through the network per image: calls, those under guidance counted twice."""
    low, high = sampler.guidance_interval
    times = sampler_times(sampler)[:-1]
    guided = ((times >= low) & (times <= high)).double().mean().item() if sampler.guidance > 1 else 0.0
    return network_calls(sampler) * (1 + guided)


def read_measured(entries: Iterable[str]) -> dict[str, float]:
    """`SiT-XL/2=450` (images a second and device), or `SiT-XL/2=runs/x/metrics.csv` (the median of a run)."""
    measured = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        try:
            if Path(value).is_file():
                with open(value, newline="") as file:
                    measured[name] = median(float(row["images_per_s"]) for row in csv.DictReader(file))
            else:
                measured[name] = float(value)
            if not 0 < measured[name] < math.inf:
                raise ValueError
        except (ValueError, KeyError):
            raise UserError(f"--measured {entry}: expected MODEL=IMAGES_PER_SECOND or MODEL=METRICS_CSV") from None
    return measured


def plan_text(cost: Plan) -> str:
    """The plan as lines of text."""
    lines = [f"{'':28} {'runs':>5} {'train GPU-h':>12} {'sample GPU-h':>13} {'disk':>9} {'wall h':>9}"]
    for group in (cost.tables, cost.arms, [cost.total]):
        lines += [
            f"{row.name[:28]:28} {row.runs:5d} {_hours(row.training_hours):>12} {_hours(row.sampling_hours):>13} "
            f"{_bytes(row.disk):>9} {_hours(row.wall_hours):>9}"
            for row in group
        ]
        lines.append("")
    sizes = ", ".join(f"{name} {_bytes(size)}" for name, size in cost.data.items())
    lines += [f"data shards: {sizes}", *cost.notes]
    lines.append("Tables share runs; the last row counts each once. Not counted: data stages, decoding, evaluation.")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


def _bytes(size: int) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size:,} B"


def _makespan(jobs: list[float], slots: int) -> float:
    """Hours until the last job ends when each free slot takes the longest job left."""
    ends = [0.0] * max(1, slots)
    for hours in sorted(jobs, reverse=True):
        ends[ends.index(min(ends))] += hours
    return max(ends)
