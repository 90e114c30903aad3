"""Training on the device beside training on the CPU, and stopping and resuming there: arms of the digits study."""

import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu.rows import Report
from benchmarks.gpu.trainers import CONFIG, Stopwatch, compiler, make_trainer, write_data
from benchmarks.trainer_step import first_run, short
from stablevelocity.study import Run, load_study
from stablevelocity.training.trainer import Trainer

ARMS = ("cfm", "stablevm-va")
RATE = 1e-3
"""Learning rate: there a last bit's difference grows to 1e-7 of the loss in 40 steps, that of bf16 or TF32 to 2e-5; at
the study's own, 8e-3, to 3e-4 and 9 % (measured on a CPU)."""
EXACT, ROUNDED = 1e-5, 1e-3
"""Bounds of the relative difference of any step's loss: of float32, and where operands are rounded."""


def run(report: Report) -> None:
    steps = 8 if report.dry else 40
    with tempfile.TemporaryDirectory() as folder, compiler(report.dry):
        data = Path(folder) / "data"
        write_data(data, images=1438, classes=10, shape=(4, 8, 8), tokens=16, width=64)
        Losses(report, data, Path(folder), steps).compare()
        # accelerate has no float16 on a CPU.
        for precision in ("fp32", "bf16", *([] if report.dry else ["fp16"])):
            resuming(report, data, Path(folder), steps, precision)
        Losses(report, data, Path(folder), steps).compare_compiled()


def digits_run(arm: str, steps: int, **training: object) -> Run:
    return short(first_run(load_study(CONFIG / "digits-arms.yaml"), arm), steps, **({"lr": RATE} | training))


class Losses:
    """The loss of each step of runs that differ in device, precision or compilation only."""

    def __init__(self, report: Report, data: Path, folder: Path, steps: int):
        self.report, self.data, self.folder, self.steps = report, data, folder, steps
        self.count = 0

    def of(self, arm: str, precision: str, *, cpu: bool = False, compiled: bool = False) -> tuple[Tensor, Trainer]:
        self.count += 1
        run = digits_run(arm, self.steps, precision=precision, compile=compiled)
        trainer = make_trainer(run, self.data, self.folder / f"losses-{compiled}-{self.count}", cpu=cpu)
        watch = Stopwatch(trainer)
        trainer.train()
        return torch.stack([loss.mean().cpu().double() for loss in watch.losses]), trainer

    def compare(self) -> None:
        report, cudnn = self.report, torch.backends.cudnn
        before = cudnn.allow_tf32
        for arm in ARMS:
            with report.guarded(f"{arm}: losses"):
                truth, _ = self.of(arm, "fp32", cpu=True)
                cudnn.allow_tf32 = False
                self.check(f"{arm}, fp32 without TF32", truth, self.of(arm, "fp32")[0], EXACT)
                cudnn.allow_tf32 = before
                # As PyTorch comes: the patch embedding is a convolution, and those may use TF32.
                self.check(f"{arm}, fp32", truth, self.of(arm, "fp32")[0], ROUNDED)
                self.check(f"{arm}, bf16", truth, self.of(arm, "bf16")[0], ROUNDED)
                if not report.dry:
                    self.half(arm, truth)
        cudnn.allow_tf32 = before

    def half(self, arm: str, truth: Tensor) -> None:
        """float16 with its scaler, which skips steps until its scale fits: compared at both ends."""
        losses, trainer = self.of(arm, "fp16")
        scale = trainer.accelerator.scaler.get_scale()
        skipped = round(math.log2(65536 / scale))
        self.report.measured(
            f"{arm}, fp16: steps skipped by the scaler", skipped, "", note=f"scale {scale:g} at the end"
        )
        first = float((losses[0] / truth[0] - 1).abs())
        self.report.check(f"{arm}, fp16: first loss", first, ROUNDED)
        end = max(1, self.steps // 4)
        last = float((losses[-end:].mean() / truth[-end:].mean() - 1).abs())
        self.report.check(f"{arm}, fp16: mean loss of the last {end} steps", last, 0.1, "some steps were skipped")

    def check(self, name: str, truth: Tensor, losses: Tensor, bound: float) -> None:
        error = (losses / truth - 1).abs()
        note = f"largest of {self.steps} steps; first {float(error[0]):.2g}; last loss {float(truth[-1]):.4g}"
        self.report.check(f"{name}: losses", float(error.max()), bound, note)

    def compare_compiled(self) -> None:
        arm = ARMS[-1]
        for precision in ("bf16", "fp32"):
            with self.report.guarded(f"{arm}, {precision}, compiled"):
                plain, _ = self.of(arm, precision)
                compiled, _ = self.of(arm, precision, compiled=True)
                self.check(f"{arm}, {precision}, compiled beside not", plain, compiled, ROUNDED)


def resuming(report: Report, data: Path, folder: Path, steps: int, precision: str) -> None:
    """A run that stops half-way and one that does not end with the same bits."""
    for strict in (True, False):
        kind = "deterministic algorithms" if strict else "as usual"
        name = f"resume, {precision}, {kind}"
        with report.guarded(name):
            torch.use_deterministic_algorithms(strict)
            try:
                states = [
                    trained_state(data, folder / f"{precision}-{strict}-{stop}", steps, precision, stop)
                    for stop in (None, steps // 2)
                ]
            finally:
                torch.use_deterministic_algorithms(False)
            differing = [key for key, value in states[0].items() if not torch.equal(value, states[1][key])]
            note = f"of {len(states[0])} tensors of the state differ{': ' + differing[0] if differing else ''}"
            if strict:
                report.check(name, len(differing), 0, note)
            else:
                report.measured(name, len(differing), "", note=f"{note}; PyTorch promises nothing here")


def trained_state(data: Path, folder: Path, steps: int, precision: str, stop: int | None) -> dict[str, Tensor]:
    run = digits_run(ARMS[-1], steps, precision=precision)
    if stop:
        first = make_trainer(run, data, folder)
        first.train(lambda: first.step >= stop)
    trainer = make_trainer(run, data, folder)
    trainer.train()
    return {name: value.cpu() for name, value in trainer._state().items()}
