"""Steps of SiT-XL/2 on 4x32x32 latents at batch 256 in bf16, through the project's own trainer, compiled as it does."""

import math
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.rows import Report, free_memory
from benchmarks.gpu.timing import Sections
from benchmarks.gpu.trainers import Stopwatch, compiler, imagenet_run, make_trainer, train_steps, write_data
from benchmarks.trainer_step import training_flops
from stablevelocity.training.trainer import Trainer

ARMS = ("sit", "stablevm", "stablevm-va-repa")
MICRO = (128, 64)  # a whole batch of 256 does not fit 80 GB
PROFILE = "profile.txt"
COUNTED = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpyAsync", "cudaMalloc")
COUNTED += ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "aten::nonzero")
COUNTED += ("aten::item", "aten::is_nonzero", "Memcpy HtoD", "Memcpy DtoH")


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder, compiler(report.dry):
        data = Path(folder) / "data"
        with report.guarded("data"):
            prepare(report, data)
        micro = MICRO[0]
        for arm in ARMS:
            with report.guarded(arm):
                micro = measure_arm(report, arm, data, Path(folder) / arm, micro, compiled=True)
        with report.guarded("sections and profile"):
            job = trainer(report, ARMS[-1], data, Path(folder) / "sections", micro, compiled=True)
            train_steps(job, 2)
            for look in (sections, waits, profiled, checkpoint):
                with report.guarded(look.__name__):
                    look(report, job)


def prepare(report: Report, data: Path) -> None:
    """1,000 classes with one image at least: what the bank does costs the same however full its rings are."""
    began = time.perf_counter()
    if report.dry:
        write_data(data, images=80, classes=10, shape=(4, 8, 8), tokens=16, width=16)
    else:
        write_data(data, images=1280, classes=1000, shape=(4, 32, 32), tokens=256, width=768)
    report.measured("data written", time.perf_counter() - began, "s")


def trainer(report: Report, arm: str, data: Path, folder: Path, micro: int, compiled: bool) -> Trainer:
    run = imagenet_run(arm, dry=report.dry, precision="fp32" if report.dry else "bf16", compile=compiled)
    if not report.dry:
        run = run.model_copy(update={"training": run.training.model_copy(update={"micro_batch": micro})})
    return make_trainer(run, data, folder, on_device=True)


def measure_arm(
    report: Report,
    arm: str,
    data: Path,
    folder: Path,
    micro: int = MICRO[0],
    *,
    compiled: bool,
    label: str = "",
) -> int:
    """Time an arm; where its batch does not fit the memory, in pieces. Gives the size of the pieces that fitted."""
    name = f"{arm}{label}"
    for size in MICRO[MICRO.index(micro) :]:
        pieces = f"pieces of {size}"
        free_memory()
        try:
            job = trainer(report, arm, data, folder, size, compiled)
            time_steps(report, name, job, data, pieces, compiled)
        except torch.OutOfMemoryError as error:
            note = str(error).splitlines()[0][:160]
            report.measured(
                f"{name}: out of memory", torch.cuda.max_memory_allocated() / 2**30, "GiB", note=f"{pieces}: {note}"
            )
        else:
            return size
        # The exception held the frames that hold the tensors.
        job = None
    report.error(name, "out of memory in every size of pieces")
    return MICRO[-1]


def time_steps(report: Report, name: str, job: Trainer, data: Path, pieces: str, compiled: bool) -> None:
    warm_up, steps = (1, 3) if report.dry else (2, 9)
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    watch = Stopwatch(job)
    train_steps(job, warm_up + steps + 1)
    seconds, batch = watch.median(warm_up), job.settings.batch
    flops = batch * training_flops(job.run, data)
    ceiling = report.rate("matrix product bf16")
    report.measured(f"{name}: step", seconds, "s", floor=flops / ceiling / 1e12, note=f"median of {steps}; {pieces}")
    report.measured(f"{name}: images", batch / seconds, "1/s", note=f"batch {batch}")
    mfu, note = (
        flops / seconds / 1e12 / ceiling,
        f"of {ceiling:.0f} TFLOP/s measured; goal 0.45; {flops / 1e12:.1f} TFLOP",
    )
    report.measured(f"{name}: MFU", mfu, "", note=note)
    sustained = report.rate("matrix product bf16, sustained")
    report.measured(f"{name}: MFU of the sustained rate", flops / seconds / 1e12 / sustained, "")
    spread = sorted(watch.seconds[warm_up:])
    report.measured(f"{name}: slowest step over fastest", spread[-1] / spread[0], "")
    if compiled:
        report.measured(f"{name}: first step, compilation included", watch.seconds[0], "s")
    if job.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        report.measured(
            f"{name}: peak memory", peak, "GiB", note=f"reserved {torch.cuda.max_memory_reserved() / 2**30:.1f}"
        )
    losses = torch.stack([loss.mean() for loss in watch.losses])
    report.check(f"{name}: losses are finite", 0.0 if bool(losses.isfinite().all()) else math.inf, 0)


def sections(report: Report, job: Trainer) -> None:
    """Where the device's time goes in a step, from events; and what the host does beside it."""
    steps = 2 if report.dry else 6
    clock = Sections(job.device)
    reading = Sections(torch.device("cpu"))
    watch_step(clock, job)
    reading.watch(job.batches, "read", "random draws")
    reading.watch(job.latents, "sample", "latents from disk")
    if job.features is not None:
        reading.watch(job.features, "read", "features from disk")
    # The first steps of a loop wait for the reader, which is not ahead yet.
    first, marks, clocks = job.step + 2, [], []

    def boundary(step: int) -> None:
        if step == first:
            clock.clear()
        if step in (first, first + steps):
            marks.append(clock.mark())
            clocks.append(time.perf_counter())

    train_steps(job, first + steps, boundary)
    parts = clock.seconds()
    total, wall = clock.elapsed(*marks) / steps, (clocks[1] - clocks[0]) / steps
    clock.unwatch()
    reading.unwatch()
    note = f"mean of {steps}; by the host's clock {wall:.4f}"
    report.measured("sections: step", total, "s", note=note)
    for section, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        report.measured(f"sections: {section}", seconds / steps, "s", note=f"{seconds / steps / total:.2%} of the step")
    rest = total - sum(parts.values()) / steps
    report.measured(
        "sections: the rest of the loop", rest, "s", note=f"{rest / total:.2%} of the step; waits for the reader"
    )
    ours = sum(parts.get(name, 0.0) for name in ("bank: insert", "bank: pick", "StableVM target")) / steps
    report.measured("sections: StableVM's share of a step", ours / total, "", floor=0.02, note="goal: under 0.02")
    reads = steps + 3  # the first two steps', and one ahead
    for section, seconds in reading.seconds().items():
        report.measured(f"reader: {section}", seconds / reads, "s", note="in a thread of its own, beside the step")


def watch_step(clock: Sections, job: Trainer) -> None:
    for owner, name, section in (
        (job.batches, "make", "batch: host to device, noising, alignment weights"),
        (job, "update", "update: finite check, micro-batches, scalar work"),
        (job, "losses", "losses"),
        (job.network, "forward", "forward"),
        (job.accelerator, "backward", "backward"),
        (nn.utils, "clip_grad_norm_", "clip"),
        (job.optimizer, "step", "optimiser"),
        (job.optimizer, "zero_grad", "zero_grad"),
        (job, "_update_ema", "EMA"),
        (job.record, "add", "record"),
    ):
        clock.watch(owner, name, section)
    bank = job.batches.bank
    if bank is not None:
        for name, section in (("insert", "bank: insert"), ("pick", "bank: pick"), ("target", "StableVM target")):
            clock.watch(bank, name, section)


def profiled(report: Report, job: Trainer) -> None:
    """Kernels and waits of some steps, in DIR/profile.txt."""
    steps = 2 if report.dry else 3
    cuda = job.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        train_steps(job, job.step + steps)
    averages = profiler.key_averages()
    key = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    lines = [f"StableVM + VA-REPA, {steps} steps in all; by {key}", ""]
    lines.append(averages.table(sort_by=key, row_limit=25, max_name_column_width=90))
    lines.append(averages.table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=60))
    for name in COUNTED:
        count = sum(event.count for event in averages if event.key.split(" (")[0] == name) / steps
        if count:
            lines.append(f"{name}: {count:.1f} a step")
            report.measured(f"profile: {name}", count, "a step")
    with open(report.folder / PROFILE, "a") as file:
        file.write("\n".join(lines) + "\n\n")


def waits(report: Report, job: Trainer) -> None:
    """The lines that make the host wait for the device, as PyTorch warns of them, over one step."""
    if job.device.type != "cuda":
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_steps(job, job.step + 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = Counter(
        f"{Path(warning.filename).parent.name}/{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchronizing" in str(warning.message)
    )
    report.measured(
        "waits for the device", waits.total(), "a step", note="; ".join(f"{n}x {at}" for at, n in waits.items())
    )


def checkpoint(report: Report, job: Trainer) -> None:
    """How long a checkpoint stalls the loop, and how long it is being written beside the next steps."""
    for name in ("the first checkpoint", "a later checkpoint"):  # the first takes the memory of its copy
        if job.device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        job.save()
        stalled = time.perf_counter() - began
        job.writer.wait()
        seconds = time.perf_counter() - began
        size = sum(file.stat().st_size for file in job.checkpoints.glob("*.safetensors"))
        report.measured(f"{name}: the loop stands still", stalled, "s", note=f"{size / 1e9:.1f} GB (bank included)")
        report.measured(f"{name}: written", seconds, "s", note=f"{size / seconds / 1e9:.2f} GB/s")
