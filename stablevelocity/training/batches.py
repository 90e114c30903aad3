"""From a step's random numbers to what the network is trained on: noised latents, targets, aligned tokens."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity import randomness
from stablevelocity.alignment import alignment_weight, spatial_normalise
from stablevelocity.data.latents import Latents
from stablevelocity.interpolants import LinearPath
from stablevelocity.progress import Progress
from stablevelocity.reference_bank import ReferenceBank
from stablevelocity.study import Run
from stablevelocity.training.features import Features


@dataclass
class Batch:
    """One process's slice (b samples) of the global batch, on the device."""

    x_t: Float[Tensor, "b c h w"]
    t: Float[Tensor, " b"]
    labels: Int[Tensor, " b"]  # null class included
    target: Float[Tensor, "b c h w"]
    removed_variance: Float[Tensor, " b"]  # mean square of (CFM target - target); 0 for CFM
    tokens: Float[Tensor, "b tokens width"] | None = None
    weight: Float[Tensor, " b"] | None = None  # w(t)
    class_token_t: Float[Tensor, "b width"] | None = None
    class_target: Float[Tensor, "b width"] | None = None

    def split(self, size: int) -> list["Batch"]:
        """Micro-batches of at most `size` samples."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        parts = zip(*(getattr(self, name).split(size) for name in names), strict=True)
        return [Batch(**dict(zip(names, part, strict=True))) for part in parts]


@dataclass
class GlobalBatch:
    """What one step reads: its draws and, for the global batch or for this process's slice, the data."""

    step: int
    draws: randomness.Draws
    data: Float[Tensor, "n c h w"]  # latents of draws.indices; this process's slice for CFM, all for StableVM
    weight_sum: float  # of w(t) over the global batch


class BatchMaker:
    """Makes the batches of a run; `read` may run ahead in a thread, `make` is called once per step in order.

    With a bank, x_0 is a reference of a uniformly drawn label and the data set only refreshes the bank: every
    process reads the whole global batch (no exchange between processes; each reads `batch` rows a step
    instead of `batch / world`) and holds the same bank.
    """

    def __init__(
        self,
        run: Run,
        latents: Latents,
        features: Features | None,
        bank: ReferenceBank | None,
        device: torch.device,
        rank: int,
        world: int,
    ):
        self.run, self.latents, self.features, self.bank, self.device = run, latents, features, bank, device
        self.path = LinearPath()
        batch = run.training.batch
        self.mine = slice(rank * batch // world, (rank + 1) * batch // world)
        # The same rings as the bank's, holding which image each reference came from: its tokens are needed.
        # Row numbers are exact in float32 up to 2^24 images.
        self.sources = None
        if bank is not None and features is not None:
            sizes = (bank.num_classes, bank.capacity, (1,))
            self.sources = ReferenceBank(*sizes, null_capacity=bank.null_capacity)

    def fill_bank(self) -> None:
        """Fill the bank with the first `capacity` images of each class in a seeded order, each sampled once."""
        assert self.bank is not None
        size = len(self.latents)
        order = torch.randperm(size, generator=randomness.generator(self.run.seed, 0, "bank order"))
        labels = self.latents.labels[order]
        by_label = labels.argsort(stable=True)
        sorted_labels = labels[by_label]
        rank_in_class = torch.arange(size) - torch.searchsorted(sorted_labels, sorted_labels)
        chosen = order[by_label[rank_in_class < self.bank.capacity].sort().values]
        progress = Progress(f"bank {self.run.name}", len(chosen), "latents")
        for number, rows in enumerate(chosen.split(1024)):
            noise = randomness.generator(self.run.seed, number, "bank posterior")
            self._insert(self.latents.sample(rows, torch.randn(len(rows), *self.latents.shape, generator=noise)), rows)
            progress.update(len(rows))
        self.bank.require_filled()

    def _insert(self, x0: Tensor, rows: Tensor) -> None:
        assert self.bank is not None
        labels = self.latents.labels[rows]
        self.bank.insert(x0, labels)
        if self.sources is not None:
            self.sources.insert(rows[:, None].float(), labels)

    def state_dict(self) -> dict[str, Tensor]:
        """The bank's rings; empty without a bank."""
        state = {} if self.bank is None else {f"bank.{k}": v for k, v in self.bank.state_dict().items()}
        if self.sources is not None:
            state |= {f"sources.{k}": v for k, v in self.sources.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, bank in (("bank.", self.bank), ("sources.", self.sources)):
            if bank is not None:
                bank.load_state_dict({k[len(name) :]: v for k, v in state.items() if k.startswith(name)})

    def read(self, step: int) -> GlobalBatch:
        """Draw and read the data of a step; touches no state, so it may run ahead."""
        training, alignment = self.run.training, self.run.alignment
        draws = randomness.draw(
            self.run.seed,
            step,
            batch=training.batch,
            size=len(self.latents),
            shape=self.latents.shape,
            num_classes=self.latents.num_classes,
            label_drop=training.label_drop,
        )
        rows = self.mine if self.bank is None else slice(None)
        data = self.latents.sample(draws.indices[rows], draws.posterior_noise[rows])
        total = 0.0
        if alignment is not None:
            total = float(alignment_weight(draws.t, alignment.schedule, alignment.xi, alignment.k).sum())
        return GlobalBatch(step, draws, data, total)

    def make(self, read: GlobalBatch) -> Batch:
        """This process's batch; with a bank, the data is inserted first."""
        draws, mine, device = read.draws, self.mine, self.device
        t, noise = draws.t[mine].to(device), draws.noise[mine].to(device)
        images = draws.indices[mine]
        if self.bank is None:
            null = torch.full_like(images, self.latents.num_classes)
            labels = torch.where(draws.dropped[mine], null, self.latents.labels[images]).to(device)
            x0 = read.data.to(device)
            x_t = self.path.interpolate(x0, noise, t)
            target = self.path.velocity_from_noise(x0, noise, t)
            removed = torch.zeros_like(t)
        else:
            assert self.run.stablevm is not None
            self._insert(read.data, draws.indices)
            labels, pick = draws.labels[mine].to(device), draws.pick[mine]
            x0 = self.bank.pick(labels, pick.to(device))
            if self.sources is not None:
                images = self.sources.pick(draws.labels[mine], pick)[:, 0].long()
            x_t = self.path.interpolate(x0, noise, t)
            single = self.path.velocity_from_noise(x0, noise, t)
            # Below t_min the target is plain CFM's; only the samples above it are looked up.
            above = (t >= self.run.stablevm.t_min).nonzero().flatten()
            target = single.clone()
            if len(above):
                target[above] = self.bank.target(x_t[above], t[above], labels[above], self.path)
            removed = (target - single).square().flatten(1).mean(1)
        batch = Batch(x_t, t, labels, target, removed)
        if self.run.alignment is not None:
            assert self.features is not None
            alignment = self.run.alignment
            batch.tokens = self.features.tokens(images).to(device)
            if alignment.spatial_norm is not None:
                batch.tokens = spatial_normalise(batch.tokens, alignment.spatial_norm)
            batch.weight = alignment_weight(t, alignment.schedule, alignment.xi, alignment.k)
        if self.run.class_token:
            assert self.features is not None
            token = self.features.class_token(images).to(device)
            generator = randomness.generator(self.run.seed, read.step, "class token")
            eps = torch.randn(len(draws.t), token.shape[1], generator=generator)[mine].to(device)
            batch.class_token_t = self.path.interpolate(token, eps, t)
            batch.class_target = self.path.velocity_from_noise(token, eps, t)
        return batch
