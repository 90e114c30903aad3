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
from stablevelocity.training.sources import Sources, filling_order
from stablevelocity.training.transfers import on_device, pinned


@dataclass
class Batch:
    """One process's slice (b samples) of the global batch; on the device but for `host_t`."""

    x_t: Float[Tensor, "b c h w"]
    t: Float[Tensor, " b"]
    host_t: Float[Tensor, " b"]  # t on the host: to choose by it must not wait for the device
    labels: Int[Tensor, " b"]  # null class included
    target: Float[Tensor, "b c h w"]
    removed_variance: Float[Tensor, " b"]  # mean square of (CFM target - target); 0 for CFM
    tokens: Float[Tensor, "b tokens width"] | None = None  # as stored, half precision included
    weight: Float[Tensor, " b"] | None = None  # w(t)
    class_token_t: Float[Tensor, "b width"] | None = None
    class_target: Float[Tensor, "b width"] | None = None

    def split(self, size: int) -> list["Batch"]:
        """Micro-batches of at most `size` samples."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        parts = zip(*(getattr(self, name).split(size) for name in names), strict=True)
        return [Batch(**dict(zip(names, part, strict=True))) for part in parts]


def build_bank(run: Run, latents: Latents, device: torch.device) -> ReferenceBank:
    """The empty bank of a run with the target of StableVM or of STF."""
    assert run.stablevm is not None
    settings = run.stablevm.bank
    host = settings.device == "host"
    return ReferenceBank(
        latents.num_classes,
        settings.capacity,
        latents.shape,
        dtype=getattr(torch, settings.dtype),
        device=torch.device("cpu") if host else device,
        null_capacity=settings.null_capacity or settings.capacity * latents.num_classes,
        pinned=host and device.type == "cuda",
    )


@dataclass
class StepData:
    """What one step reads, on the host: this process's slice, and with a bank the data of the global batch."""

    step: int
    weight_sum: float  # of w(t) over the global batch
    t: Float[Tensor, " b"]
    noise: Float[Tensor, "b c h w"]
    labels: Int[Tensor, " b"]  # null class included
    pick: Float[Tensor, " b"]  # which reference is noised
    latents: Float[Tensor, "n c h w"]  # x_0 (n = b), or with a bank what is inserted (n = B)
    inserted: Int[Tensor, " n"]  # classes of the latents
    features: dict[str, Tensor] | None  # of the images of x_0
    class_noise: Float[Tensor, "b width"] | None


class BatchMaker:
    """Makes the batches of a run: `read` on the host, in threads and ahead; `make` once per step, in order.

    With StableVM, x_0 is a reference of a uniformly drawn label and the data set only refreshes the bank; with STF,
    x_0 is the image just inserted, as read for CFM. With a bank every process reads the whole global batch (no exchange
    between processes; each reads `batch` rows a step instead of `batch / world`) and holds the same bank.
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
        self.picks = run.objective == "stablevm"  # x_0 from the bank, not from the data of the step
        self.path = LinearPath()
        batch = run.training.batch
        self.mine = slice(rank * batch // world, (rank + 1) * batch // world)
        if bank is not None and self.picks:
            rings = (bank.num_classes, bank.capacity, bank.null_capacity)
            self.sources = Sources(run.seed, batch, latents.labels, *rings)

    def fill_bank(self) -> None:
        """Fill the bank with the first `capacity` images of each class in a seeded order, each sampled once."""
        assert self.bank is not None
        chosen = filling_order(self.run.seed, self.latents.labels, self.bank.capacity)
        progress = Progress(f"bank {self.run.name}", len(chosen), "latents")
        for number, rows in enumerate(chosen.split(1024)):
            noise = randomness.generator(self.run.seed, number, "bank posterior")
            x0 = self.latents.sample(rows, torch.randn(len(rows), *self.latents.shape, generator=noise))
            self.bank.insert(x0, self.latents.labels[rows])
            progress.update(len(rows))
        self.bank.require_filled()

    def state_dict(self) -> dict[str, Tensor]:
        """The bank's rings; empty without a bank."""
        return {} if self.bank is None else {f"bank.{k}": v for k, v in self.bank.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if self.bank is not None:
            self.bank.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("bank.")})
            self.bank.require_filled()

    def read(self, step: int) -> StepData:
        """Draw and read the data of a step; depends on nothing but the step."""
        training, alignment, mine = self.run.training, self.run.alignment, self.mine
        draws = randomness.draw(
            self.run.seed,
            step,
            batch=training.batch,
            size=len(self.latents),
            shape=self.latents.shape,
            num_classes=self.latents.num_classes,
            label_drop=training.label_drop,
        )
        images = draws.indices[mine]
        if self.picks:
            labels = draws.labels[mine]
        else:
            labels = torch.where(draws.dropped[mine], self.latents.num_classes, self.latents.labels[images])
        read_here = mine if self.bank is None else slice(None)
        latents = self.latents.sample(draws.indices[read_here], draws.posterior_noise[read_here])
        inserted = self.latents.labels[draws.indices[read_here]]
        weight_sum, features, class_noise = 0.0, None, None
        if alignment is not None:
            weight_sum = float(alignment_weight(draws.t, alignment.schedule, alignment.xi, alignment.k).sum())
        if self.features is not None:
            if self.picks:
                images = self.sources.images(step, labels, draws.pick[mine])
            read = self.features.read(images, class_token=self.run.class_token)
            features = {name: pinned(value, self.device) for name, value in read.items()}
        if self.run.class_token:
            assert self.features is not None
            generator = randomness.generator(self.run.seed, step, "class token")
            eps = torch.randn(training.batch, self.features.width, generator=generator)
            class_noise = pinned(eps[mine], self.device)
        latents, noise = pinned(latents, self.device), pinned(draws.noise[mine], self.device)
        t, pick = draws.t[mine], draws.pick[mine]
        return StepData(step, weight_sum, t, noise, labels, pick, latents, inserted, features, class_noise)

    def make(self, read: StepData) -> Batch:
        """This process's batch; with a bank, the data is inserted first. No wait for a device that holds the bank."""
        device, bank = self.device, self.bank
        t, noise, labels = (on_device(value, device) for value in (read.t, read.noise, read.labels))
        if bank is not None:
            bank.insert(on_device(read.latents, bank.device), on_device(read.inserted, bank.device))
        if bank is not None and self.picks:
            x0 = bank.pick(on_device(read.labels, bank.device), on_device(read.pick, bank.device)).to(device)
        else:
            x0 = on_device(read.latents if bank is None else read.latents[self.mine], device)
            # Rounded as its row in the bank: at small t the target is that of the very point that was noised.
            x0 = x0 if bank is None else x0.to(bank.dtype).float()
        x_t = self.path.interpolate(x0, noise, t)
        target = self.path.velocity_from_noise(x0, noise, t)
        removed = torch.zeros_like(t)
        if bank is not None:
            assert self.run.stablevm is not None
            # Below t_min the target is plain CFM's; only the samples above it are looked up.
            above = (read.t >= self.run.stablevm.t_min).nonzero().flatten()
            if len(above):
                single, rows = target, on_device(above, device)
                stable = bank.target(x_t[rows], t[rows], read.labels[above], self.path)
                target = single.index_copy(0, rows, stable)
                removed = (target - single).square().flatten(1).mean(1)
        batch = Batch(x_t, t, read.t, labels, target, removed)
        if self.features is None or read.features is None:
            return batch
        tokens, class_token = self.features.tokens({k: on_device(v, device) for k, v in read.features.items()})
        if self.run.alignment is not None:
            alignment = self.run.alignment
            if alignment.spatial_norm is not None:
                tokens = spatial_normalise(tokens.float(), alignment.spatial_norm)
            batch.tokens = tokens
            batch.weight = alignment_weight(t, alignment.schedule, alignment.xi, alignment.k)
        if self.run.class_token:
            assert class_token is not None
            assert read.class_noise is not None
            token, eps = class_token.float(), on_device(read.class_noise, device)
            batch.class_token_t = self.path.interpolate(token, eps, t)
            batch.class_target = self.path.velocity_from_noise(token, eps, t)
        return batch
