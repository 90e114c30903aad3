"""Bank, variance curve and FID statistics at the sizes of the ImageNet study."""

import math

import torch
from torch import Tensor

from benchmarks.gpu.rows import Report, free_memory
from benchmarks.gpu.timing import median_seconds
from stablevelocity.evaluation.fidelity import frechet_distance, gaussian_statistics
from stablevelocity.interpolants import LinearPath
from stablevelocity.reference_bank import ReferenceBank
from stablevelocity.variance import variance_curve


def run(report: Report) -> None:
    with report.guarded("bank"):
        banks(report)
    with report.guarded("variance curve"):
        curve(report)
    with report.guarded("FID statistics"):
        fid(report)


def banks(report: Report) -> None:
    """1,000 classes of 256 latents in float16, with the null ring that the trainer makes, a small one, and none."""
    classes, capacity, shape, batch = (10, 4, (4, 4, 4), 8) if report.dry else (1000, 256, (4, 32, 32), 256)
    for null, title in (
        (classes * capacity, "null ring of every row"),
        (capacity, "null ring of one class"),
        (0, "no null ring"),
    ):
        with report.guarded(title):
            one_bank(report, title, classes, capacity, shape, batch, null)
        free_memory()


def one_bank(
    report: Report, title: str, classes: int, capacity: int, shape: tuple[int, ...], batch: int, null: int
) -> None:
    device, path = report.device, LinearPath()
    copy, product = report.rate("device copy") * 1e9, report.rate("matrix product fp32") * 1e12
    step = report.earlier("training", "stablevm: step")
    dimension = math.prod(shape)
    g = torch.Generator(device).manual_seed(0)
    bank = ReferenceBank(classes, capacity, shape, torch.float16, device, null)
    for _ in range(capacity):
        bank.insert(torch.randn(classes, *shape, device=device, generator=g), torch.arange(classes, device=device))
    bank.require_filled()
    labels = torch.randperm(classes, device=device, generator=g)[:batch]
    mixed = torch.where(torch.rand(batch, device=device, generator=g) < 0.1, classes, labels) if null else labels
    u, noise = torch.rand(batch, device=device, generator=g), torch.randn(batch, *shape, device=device, generator=g)
    t = 0.5 + 0.5 * torch.rand(batch, device=device, generator=g)
    x0 = bank.pick(mixed, u)
    x_t = path.interpolate(x0, noise, t)
    row = 2 * dimension  # bytes of a stored one
    seconds = {
        "insert": median_seconds(lambda: bank.insert(x0, labels), device),
        "pick": median_seconds(lambda: bank.pick(mixed, u), device),
        "target": median_seconds(lambda: bank.target(x_t, t, mixed, path), device),
    }
    upper = t >= t.median()
    some = [value[upper] for value in (x_t, t, mixed)]
    seconds["target, half of the batch"] = median_seconds(lambda: bank.target(*some, path), device)
    # Read each float32 sample and write it to its own ring and the null ring; read a float16 row and write float32.
    floors = {
        "insert": batch * dimension * (4 + 2 + (2 if null else 0)) / copy,
        "pick": batch * dimension * (2 + 4) / copy,
    }
    for name, count in (("target", batch), ("target, half of the batch", len(some[0]))):
        # Each sample's own ring is read once, the null ring once for all; two products of each with each sample.
        nulls = int((mixed if name == "target" else some[2]).eq(classes).sum())
        read = ((count - nulls) * capacity + (null if nulls else 0)) * row / copy
        work = 4 * dimension * ((count - nulls) * capacity + nulls * null) / product
        floors[name] = max(read, work)
        report.measured(
            f"{title}: {name}, floor by bytes", read, "s", note=f"floor by operations {work:.3g} s, {nulls} null labels"
        )
    for name, value in seconds.items():
        share = f"{value / step:.2%} of a training step" if math.isfinite(step) else ""
        report.measured(f"{title}: {name}", value, "s", floor=floors[name], note=share)
    whole = seconds["insert"] + seconds["pick"] + seconds["target, half of the batch"]
    note = "insert, pick, and the target of the half above t_min = 0.5; goal: under 0.02"
    report.measured(f"{title}: share of a training step", whole / step, "", floor=0.02, note=note)


def curve(report: Report) -> None:
    count, dimension = (200, 16) if report.dry else (50_000, 4096)
    product = report.rate("matrix product fp32") * 1e12
    g = torch.Generator(report.device).manual_seed(1)
    samples = torch.randn(count, dimension, device=report.device, generator=g)

    def run(**options: int) -> Tensor:
        return variance_curve(samples, times=[0.7], **options).mean

    if report.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for name, options in (("", {}), (", 4 GiB for temporaries", {"memory_limit": 2**32})):
        seconds = median_seconds(lambda options=options: run(**options), report.device, rounds=1, warm_up=0)
        note = f"{count} queries on {count} references of {dimension}"
        floor = 4 * count**2 * dimension / product
        report.measured(f"variance curve, one time{name}", seconds, "s", floor=floor, note=note)
    if report.device.type == "cuda":
        report.measured("variance curve: peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def fid(report: Report) -> None:
    count, width = (300, 8) if report.dry else (50_000, 2048)
    device, cpu = report.device, torch.device("cpu")
    g = torch.Generator(device).manual_seed(2)
    mix = torch.randn(width, width, device=device, generator=g) / width**0.5
    tables = [
        [
            torch.randn(n, width, device=device, generator=g) @ mix + shift
            for n in [2048] * (count // 2048) + [count % 2048]
        ]
        for shift in (0.0, 0.1)
    ]
    floor = 2 * count * width**2 / report.rate("matrix product fp64") / 1e12
    seconds = median_seconds(lambda: gaussian_statistics(tables[0]), device, rounds=3, warm_up=1)
    report.measured(
        "FID: mean and covariance, on the device", seconds, "s", floor=floor, note=f"{count} x {width}, float64"
    )
    statistics = [gaussian_statistics(table) for table in tables]
    seconds = median_seconds(lambda: frechet_distance(*statistics), cpu, rounds=1, warm_up=0)
    report.measured(
        "FID: distance, on the device", seconds, "s", note="two eigendecompositions, one of singular values"
    )
    distance = frechet_distance(*statistics)
    if report.time_left < 15 and not report.dry:
        report.error("FID on the CPU", "no time left for it")
        return
    host = [[rows.cpu() for rows in table] for table in tables]
    seconds = median_seconds(lambda: gaussian_statistics(host[0]), cpu, rounds=1, warm_up=0)
    report.measured(
        "FID: mean and covariance, on the CPU",
        seconds,
        "s",
        note=f"as the project does, {torch.get_num_threads()} threads",
    )
    on_host = [gaussian_statistics(table) for table in host]
    seconds = median_seconds(lambda: frechet_distance(*on_host), cpu, rounds=1, warm_up=0)
    report.measured("FID: distance, on the CPU", seconds, "s", note="as the project does")
    truth = frechet_distance(*on_host)
    # Eigenvalues below 2048 eps of the largest are rounding: their roots, 1e-6 of the largest root each, remain.
    report.check("FID: device beside CPU", abs(distance / truth - 1), 1e-6, f"FID {truth:.5g}")
