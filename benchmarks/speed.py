"""Speed, memory and accuracy of targets, bank and variance curve beside the broadcast forms."""

import torch
from torch import Tensor

from benchmarks import broadcast
from benchmarks.measuring import Comparison, compare
from stablevelocity.interpolants import LinearPath
from stablevelocity.reference_bank import ReferenceBank
from stablevelocity.targets import stablevm_target
from stablevelocity.variance import variance_curve

PATH = LinearPath()
CAPACITY, SHAPE, DIMENSION = 256, (4, 32, 32), 4096


def _draw(rows: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """x_t and t in [0.5, 1), where StableVM is used by default, each from a reference of its class (C, n, d)."""
    g = torch.Generator().manual_seed(seed)
    t = 0.5 + 0.5 * torch.rand(len(labels), generator=g)
    x0 = rows[labels, torch.randint(0, rows.shape[1], (len(labels),), generator=g)]
    return PATH.interpolate(x0.float(), torch.randn(x0.shape, generator=g), t), t


def _truth(x_t: Tensor, t: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """The written-out sum in float64, eight samples at a time."""
    parts = [
        broadcast.stablevm_target(x.double(), time.double(), rows[label].double())
        for x, time, label in zip(x_t.split(8), t.split(8), labels.split(8), strict=True)
    ]
    return torch.cat(parts)


def _rows(classes: int, spread: float) -> Tensor:
    """Unit-variance latents (C, n, d): spread 1 for independent ones, less for classes that lie close together."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 1, DIMENSION, generator=g)
    noise = torch.randn(classes, CAPACITY, DIMENSION, generator=g)
    return (1 - spread**2) ** 0.5 * centres + spread * noise


def target(batch: int, classes: int, dtype: str = "float32", spread: float = 1.0) -> Comparison:
    """The target of a batch over the bank; gathering the references is part of the broadcast form."""
    rows = _rows(classes, spread).to(getattr(torch, dtype))
    bank = ReferenceBank(classes, CAPACITY, SHAPE, rows.dtype)
    bank.insert(rows.reshape(-1, *SHAPE), torch.arange(classes).repeat_interleave(CAPACITY))
    labels = torch.randint(0, classes, (batch,), generator=torch.Generator().manual_seed(1))
    x_t, t = _draw(rows, labels, seed=2)
    images = x_t.unflatten(1, SHAPE)
    kind = "" if spread == 1 else f", close references (spread {spread:g})"
    stored = "" if dtype == "float32" else f", {dtype} bank"
    return compare(
        f"target, {batch} samples, {classes} class{'es' * (classes > 1)}, n = 256, d = 4096{stored}{kind}",
        ("broadcast", lambda: broadcast.stablevm_target(x_t, t, rows[labels].float())),
        lambda: bank.target(images, t, labels, PATH).flatten(1),
        truth=_truth(x_t, t, rows, labels),
        rounds=5 if batch < 100 else 3,
    )


def function(batch: int) -> Comparison:
    """stablevm_target on references that are already gathered, one set per sample."""
    rows = _rows(batch, 1.0)
    labels = torch.arange(batch)
    x_t, t = _draw(rows, labels, seed=2)
    return compare(
        f"stablevm_target, {batch} samples, own references each, n = 256, d = 4096",
        ("broadcast", lambda: broadcast.stablevm_target(x_t, t, rows)),
        lambda: stablevm_target(x_t, t, rows, PATH),
        truth=_truth(x_t, t, rows, labels),
    )


def insertion(form: str) -> Comparison:
    """256 latents into a full bank of 1,000 classes of 256 rows, in float16."""
    classes, batch = 1000, 256
    g = torch.Generator().manual_seed(0)
    # Written once over its whole length, so that no page is touched first while the clock runs.
    rows = torch.zeros(classes, CAPACITY, DIMENSION, dtype=torch.float16).fill_(0.5)
    bank = ReferenceBank(classes, CAPACITY, SHAPE, torch.float16)
    for label in range(classes):
        bank.insert(rows[label].unflatten(1, SHAPE), torch.full((CAPACITY,), label))
    bank.require_filled()
    labels = torch.randint(0, classes, (batch,), generator=g)
    x = torch.randn(batch, *SHAPE, generator=g)
    other = {"list": broadcast.ListBank, "loop": broadcast.LoopBank}[form](rows)
    name = {"list": "list of tensors, torch.cat", "loop": "ring, loop over samples"}[form]
    return compare(
        "bank insertion, 256 latents, 1,000 classes",
        (name, lambda: other.insert(x.flatten(1).half(), labels)),
        lambda: bank.insert(x, labels),
        rounds=9,
    )


def curve(count: int, dimension: int, queries: int, rows: int) -> Comparison:
    """One time of the variance curve: `queries` of `count` samples noised, all of them the distribution."""
    g = torch.Generator().manual_seed(0)
    samples = torch.randn(count, dimension, generator=g) / dimension**0.25
    t = 0.7
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(1))[:queries]
    x0 = samples[chosen]
    x_t = PATH.interpolate(x0, torch.randn(queries, dimension, generator=g), t)

    def ours() -> Tensor:
        # The same queries; the noise is the estimator's own, so values agree in distribution and not in each number.
        return variance_curve(
            samples, PATH, [t], queries=queries, generator=torch.Generator().manual_seed(1)
        ).deviations[0]

    return compare(
        f"variance curve, {count:,} points, d = {dimension:,}, {queries:,} noised, one time",
        (f"broadcast, {rows} noised at a time", lambda: broadcast.variance(samples, x_t, x0, t, rows)),
        ours,
        rounds=3,
    )


CASES = [
    (target, (64, 100)),
    (target, (256, 100)),
    (target, (64, 100, "float16")),
    (target, (64, 1)),
    (target, (256, 1)),
    (target, (64, 100, "float32", 0.05)),
    (function, (64,)),
    (insertion, ("list",)),
    (insertion, ("loop",)),
    (curve, (10_000, 100, 250, 250)),
    (curve, (2_000, 4_096, 64, 32)),
]
