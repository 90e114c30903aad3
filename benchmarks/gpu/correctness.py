"""The mathematics on the device against float64 on the CPU, each with a bound that follows from the arithmetic.

float32 without TF32 lands far under 1e-4 (an exponent of the posterior's weights is some hundreds, known to 7 digits),
TF32 near 3e-4, bfloat16 operands between 1e-3 and 1e-2 a product.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from benchmarks.gpu.rows import Report, relative_error
from stablevelocity.alignment import SCHEDULES, alignment_loss, alignment_weight
from stablevelocity.gmm import paper_mixture
from stablevelocity.interpolants import CosinePath, LinearPath
from stablevelocity.models.sit import SiT, build_sit
from stablevelocity.reference_bank import ReferenceBank
from stablevelocity.sampling import euler, euler_maruyama, guided_velocity, heun, stablevs, uniform_times
from stablevelocity.schedulers import (
    StableVSDPMSolverMultistepScheduler,
    StableVSFlowMatchEulerScheduler,
    StableVSUniPCMultistepScheduler,
)
from stablevelocity.targets import cfm_target, stablevm_target, stf_target
from stablevelocity.variance import variance_curve

FLOAT32, TF32, BF16 = 1e-4, 3e-3, 3e-2
SCALE = 2.0**12


def run(report: Report) -> None:
    for name, function in (
        ("targets", targets),
        ("bank", bank),
        ("alignment", alignment),
        ("variance curve", variance),
        ("solvers", solvers),
        ("schedulers", schedulers),
        ("SiT", networks),
    ):
        with report.guarded(name):
            function(report)


class Case(NamedTuple):
    """Samples noised from one of their references, in float64 on the CPU."""

    references: Tensor  # (B, n, d)
    x0: Tensor
    noise: Tensor
    t: Tensor
    x_t: Tensor


def case(batch: int, count: int, dimension: int, dtype: torch.dtype, seed: int) -> Case:
    """References close together, so that at these times many have weight; rounded to `dtype` first."""
    g = torch.Generator().manual_seed(seed)
    middle = torch.randn(batch, 1, dimension, generator=g)
    references = (middle + 0.2 * torch.randn(batch, count, dimension, generator=g)).to(dtype).double()
    noise = torch.randn(batch, dimension, generator=g).double()
    t = (0.3 + 0.69 * torch.rand(batch, generator=g)).double()
    x0 = references[:, 0]
    return Case(references, x0, noise, t, (1 - t[:, None]) * x0 + t[:, None] * noise)


def written_out(x_t: Tensor, t: Tensor, references: Tensor) -> Tensor:
    """sum_k w_k (x_t - x_k)/t on the linear path, from the differences, in float64."""
    sigma, alpha = t[:, None], 1 - t[:, None]
    squares = (x_t[:, None] - alpha[:, None] * references).square().sum(-1)
    weights = (-squares / (2 * sigma**2)).softmax(1)
    return (x_t - (weights[:, None] @ references).squeeze(1)) / sigma


def targets(report: Report) -> None:
    batch, count, dimension = (4, 8, 64) if report.dry else (64, 128, 4096)
    path, device = LinearPath(), report.device
    for seed, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16)):
        it = case(batch, count, dimension, dtype, seed)
        x_t, t = it.x_t.float(), it.t.float()
        truth = written_out(x_t.double(), t.double(), it.references)
        own = it.references.to(device, dtype)
        for function in (stablevm_target, stf_target):
            name = f"{function.__name__}, references in {str(dtype)[6:]}"
            report.check(name, relative_error(function(x_t.to(device), t.to(device), own, path), truth), FLOAT32)
        # Fast modes that a program around it may have chosen must not reach it.
        torch.set_float32_matmul_precision("high")
        with torch.autocast(device.type, torch.bfloat16):
            value = stablevm_target(x_t.to(device), t.to(device), own, path)
        torch.set_float32_matmul_precision("highest")
        report.check(
            f"the same under autocast and TF32, references in {str(dtype)[6:]}", relative_error(value, truth), FLOAT32
        )
    for path in (LinearPath(), CosinePath()):
        parts = [value.float().to(device) for value in (it.x0, it.noise, it.t)]
        truth = cfm_target(it.x0.float().double(), it.noise.float().double(), it.t.float().double(), path)
        report.check(f"cfm_target, {type(path).__name__}", relative_error(cfm_target(*parts, path), truth), 1e-6)


def bank(report: Report) -> None:
    """The bank on the device (blocks of slots) beside the bank on the CPU (ring by ring), same insertions."""
    classes, capacity, shape, batch = (5, 8, (4, 4, 4), 12) if report.dry else (20, 64, (4, 32, 32), 256)
    path, device = LinearPath(), report.device
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        with report.guarded(f"bank in {str(dtype)[6:]}"):
            name = f"bank in {str(dtype)[6:]}"
            g = torch.Generator().manual_seed(3)
            middle = torch.randn(classes, *shape, generator=g)
            null = 2 * capacity
            banks = [ReferenceBank(classes, capacity, shape, dtype, each, null) for each in ("cpu", device)]
            for _ in range(6):
                labels = torch.arange(capacity * 2) % classes
                labels = labels[torch.randperm(len(labels), generator=g)]
                x = middle[labels] + 0.2 * torch.randn(len(labels), *shape, generator=g)
                for each in banks:
                    each.insert(x.to(each.device), labels.to(each.device))
            for each in banks:
                each.require_filled()
            states = [each.state_dict() for each in banks]
            differing = sum(not torch.equal(states[0][k], states[1][k].cpu()) for k in ("rows", "centres", "inserted"))
            report.check(f"{name}: rows, centres, counts after insertion", differing, 0)
            labels = torch.randint(classes + 1, (batch,), generator=g)
            u, noise = torch.rand(batch, generator=g), torch.randn(batch, *shape, generator=g)
            t = 0.3 + 0.69 * torch.rand(batch, generator=g)
            picked = [each.pick(labels.to(each.device), u.to(each.device)).cpu() for each in banks]
            report.check(f"{name}: picks", float((picked[0] - picked[1]).abs().max()), 0)
            x_t = path.interpolate(picked[0], noise, t)
            own = [each.target(*(v.to(each.device) for v in (x_t, t, labels)), path) for each in banks]
            truth = torch.cat(
                [
                    written_out(
                        x.flatten()[None].double(), at[None].double(), banks[0].references(int(y)).flatten(1).double()
                    )
                    for x, at, y in zip(x_t, t, labels, strict=True)
                ]
            )
            for each, kind in zip(own, ("CPU", "device"), strict=True):
                report.check(
                    f"{name}: target, {kind}, with null labels", relative_error(each.flatten(1), truth), FLOAT32
                )
            if device.type == "cuda":
                pinned = ReferenceBank(classes, capacity, shape, dtype, "cpu", null, pinned=True)
                pinned.load_state_dict(states[0])
                value = pinned.target(*(v.to(device) for v in (x_t, t, labels)), path)
                report.check(f"{name}: target, pinned host memory", relative_error(value.flatten(1), truth), FLOAT32)


def alignment(report: Report) -> None:
    batch, tokens, width = (4, 4, 8) if report.dry else (64, 256, 768)
    device, g = report.device, torch.Generator().manual_seed(4)
    t = (torch.arange(batch) + torch.rand(batch, generator=g)) / batch
    for schedule in SCHEDULES:
        value, truth = alignment_weight(t.to(device), schedule), alignment_weight(t.double(), schedule)
        # sigmoid(20 (0.7 - t)): the argument's rounding, 20 eps, is the relative error of the weight.
        report.check(f"alignment weight {schedule}", relative_error(value, truth), 1e-5)
    weights = alignment_weight(t)
    features = torch.randn(batch, tokens, width, generator=g)
    for dtype in (torch.float32, torch.bfloat16):
        projected = (features + torch.randn(batch, tokens, width, generator=g)).to(dtype)
        a, b = projected.double(), features.double()
        cosine = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
        truth = -(weights.double() * cosine.mean(1)).sum() / weights.double().sum()
        with torch.autocast(device.type, torch.bfloat16):
            value = alignment_loss(projected.to(device), features.to(device), weights.to(device))
        note = "under autocast; float32 inside"
        report.check(f"alignment loss of {str(dtype)[6:]} projections", relative_error(value, truth), 1e-5, note)


def variance(report: Report) -> None:
    count, dimension = (100, 16) if report.dry else (2000, 256)
    samples = torch.randn(count, dimension, generator=torch.Generator().manual_seed(5))
    times = [0.2, 0.5, 0.7, 0.9]
    curves = [
        variance_curve(x, times=times, generator=torch.Generator().manual_seed(6))
        for x in (samples.double(), samples.to(report.device))
    ]
    # At low t the posterior is one reference and V nearly 0: the error is one of the whole curve.
    report.check("variance curve", relative_error(curves[1].mean, curves[0].mean), FLOAT32)


def networks(report: Report) -> None:
    """Forward and gradient of SiT-S/2 with weights that are all at work (fresh ones give 0)."""
    device, batch = report.device, 2 if report.dry else 8
    sizes = {"depth": 2, "width": 32, "heads": 4, "patch_size": 2}
    torch.manual_seed(7)
    shared = {"projector_dims": (768,), "num_classes": 10}
    model = (
        SiT(input_size=8, encoder_depth=1, **sizes, **shared)
        if report.dry
        else build_sit("SiT-S/2", input_size=32, **shared)
    )
    g = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=g)
    side = model.input_size
    x, t = torch.randn(batch, 4, side, side, generator=g), torch.rand(batch, generator=g)
    y = torch.randint(11, (batch,), generator=g)

    def results(model: SiT, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity, projection, and the gradient of their mean squares."""
        weight = model.x_embedder.proj.weight
        inputs = x.to(weight), t.to(weight.device), y.to(weight.device)
        with torch.autocast(weight.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            output = model(*inputs)
        # Scaled by a power of two, for float16: without, the smallest gradients of the pass would be 0.
        loss = sum(value.to(weight.dtype).square().mean() for value in (output.velocity, output.projections[0])) * SCALE
        gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
        gradient = torch.cat([gradient.flatten() for gradient in gradients]) / SCALE
        return output.velocity, output.projections[0], gradient

    truth = results(model.double())
    model = model.float().to(device)
    cudnn = torch.backends.cudnn
    cases = [("as PyTorch comes (TF32 in convolutions)", None, cudnn.allow_tf32, TF32)]
    cases += [("without TF32", None, False, FLOAT32), ("bf16 autocast", torch.bfloat16, False, BF16)]
    cases += [("fp16 autocast", torch.float16, False, BF16 / 4)]
    before = cudnn.allow_tf32
    for name, dtype, tf32, bound in cases:
        with report.guarded(f"SiT, {name}"):
            cudnn.allow_tf32 = tf32
            for what, value, true in zip(
                ("velocity", "projection", "gradient"), results(model, dtype), truth, strict=True
            ):
                report.check(f"SiT, {name}: {what}", relative_error(value, true), bound)
    cudnn.allow_tf32 = before
    with report.guarded("solver on a SiT"):
        cudnn.allow_tf32 = False
        ends = []
        for dtype, where in ((torch.float64, "cpu"), (torch.float32, device)):
            own = model.to(where, dtype)
            velocity = guided_velocity(own.velocity, y[:2].to(where), null_class=10, scale=1.8, interval=(0.0, 0.7))
            with torch.no_grad():
                ends.append(heun(velocity, x[:2].to(where, dtype), uniform_times(4)))
        report.check("guided Heun on a SiT in float32", relative_error(ends[1], ends[0]), FLOAT32)
        cudnn.allow_tf32 = before


def solvers(report: Report) -> None:
    """On the exact velocity of a mixture in float64: only the order of sums differs."""
    mixture, path, device = paper_mixture(8), LinearPath(), report.device
    start = torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    times = uniform_times(10 if report.dry else 50)
    maruyama = functools.partial(euler_maruyama, path=path, diffusion="t")
    solvers: dict[str, Callable] = {
        "Euler": lambda v, x, g: euler(v, x, times),
        "Heun": lambda v, x, g: heun(v, x, times),
        "Euler-Maruyama": lambda v, x, g: maruyama(v, x, times, generator=g),
        "StableVS": lambda v, x, g: stablevs(v, x, times, xi=0.7, path=path),
        "StableVS with noise": lambda v, x, g: stablevs(v, x, times, xi=0.7, path=path, noise_factor=0.5, generator=g),
    }
    for name, solver in solvers.items():
        ends = []
        for where in ("cpu", device):
            own = mixture.to(where)
            ends.append(
                solver(
                    lambda x, t, own=own: own.velocity(x, t, path), start.to(where), torch.Generator().manual_seed(10)
                )
            )
        report.check(f"{name} on an exact velocity", relative_error(ends[1], ends[0]), 1e-9)


def schedulers(report: Report) -> None:
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    device = report.device
    shape = (2, 4, 8, 8) if report.dry else (2, 16, 64, 64)
    start = torch.randn(*shape, generator=torch.Generator().manual_seed(11))
    for stock, ours, config in (
        (FlowMatchEulerDiscreteScheduler, StableVSFlowMatchEulerScheduler, {"shift": 3.0}),
        (DPMSolverMultistepScheduler, StableVSDPMSolverMultistepScheduler, flow),
        (UniPCMultistepScheduler, StableVSUniPCMultistepScheduler, flow),
    ):
        name = ours.__name__
        for dtype in (torch.float32, torch.bfloat16):
            with report.guarded(name):
                ends = [
                    integrate(each, start.to(device, dtype))
                    for each in (stock(**config), ours(enabled=False, **config))
                ]
                same = torch.equal(*ends)
                note = "30 steps; the same bits as the parent class"
                report.check(f"{name}, not enabled, {str(dtype)[6:]}", 0.0 if same else math.inf, 0, note)
        with report.guarded(name):
            ends = [integrate(ours(**config), start.to(where)) for where in ("cpu", device)]
            report.check(f"{name}, enabled, beside the CPU", relative_error(ends[1], ends[0]), 1e-5)


def integrate(scheduler, x: Tensor) -> Tensor:
    """The end of 30 base steps along a smooth field that is neither constant nor linear."""
    scheduler.set_timesteps(30, device=x.device)
    for timestep in scheduler.timesteps:
        velocity = (torch.cos(2 * x.float()) + x.float() * (float(timestep) / 1000 - 0.3)).to(x.dtype)
        x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
    return x
