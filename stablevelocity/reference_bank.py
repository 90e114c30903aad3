"""The class-conditional bank of references that StableVM trains with (docs/paper.md#stablevm).

One tensor holds the ring buffers of all classes and, at its end, that of the null class, which takes every
sample whatever its class. Beside each row stands its squared distance to the centre of its ring (the first
row that the ring ever held), so that a target costs two products of matrices.

Nothing here draws a random number: the caller gives a uniform number per sample, so that any number of
processes makes the same draws.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.interpolants import Interpolant, State, Time
from stablevelocity.targets import ReferenceBlock, block_entries, exact_arithmetic, posterior_mean


class ReferenceBank:
    """First-in-first-out references: `capacity` per class and `null_capacity` for the null class, label `num_classes`.

    Rows are kept in `dtype` (float16 or bfloat16 halve the memory; arithmetic is float32 on the rounded rows,
    and `pick` returns the rounded rows, so the noised sample is among its references bit for bit). They live
    on `device`; `pinned` puts them in page-locked host memory, for banks that do not fit the accelerator:
    blocks then travel class by class to the device of `x_t`.

    Memory: (num_classes capacity + null_capacity) d bytes-per-number; 2.1 GB for 1,000 classes of 256 latents
    4x32x32 in float16. `null_capacity = 0` (the default) means no null class. A null bank of K rows, as the
    authors' code has, covers at most K of the classes at a time; a larger one costs memory and, per step, one
    product of the null class's samples with all its rows.
    """

    def __init__(
        self,
        num_classes: int,
        capacity: int,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        null_capacity: int = 0,
        *,
        pinned: bool = False,
    ) -> None:
        if num_classes < 1 or capacity < 1 or null_capacity < 0:
            raise UserError(
                f"ReferenceBank: num_classes {num_classes}, capacity {capacity}, "
                f"null_capacity {null_capacity}; expected at least 1, 1 and 0"
            )
        if pinned and torch.device(device).type != "cpu":
            raise UserError(f"ReferenceBank: pinned rows on {device}; expected device cpu with pinned=True")
        self.num_classes, self.capacity, self.null_capacity = num_classes, capacity, null_capacity
        self.shape = tuple(shape)
        self.device = torch.device(device)
        total = num_classes * capacity + null_capacity
        dimension = torch.Size(self.shape).numel()
        self._rows = torch.zeros(total, dimension, dtype=dtype, device=self.device, pin_memory=pinned)
        self._squared_distances = torch.zeros(total, device=self.device)
        self._centres = torch.zeros(num_classes + 1, dimension, device=self.device)
        # Rows ever inserted, per class and for the null class: both the head of the ring and how full it is.
        self._inserted = torch.zeros(num_classes + 1, dtype=torch.int64, device=self.device)
        # No ring is empty any more: known without asking the device, and centres need no more care.
        self._all_nonempty = False
        sizes = [capacity] * num_classes + [null_capacity]
        self._capacities = torch.tensor(sizes, dtype=torch.int64, device=self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows as they are kept."""
        return self._rows.dtype

    @property
    def counts(self) -> Int[Tensor, " labels"]:
        """Rows held now: one number per class, then that of the null class."""
        return torch.minimum(self._inserted, self._capacities)

    def require_filled(self) -> None:
        """Raise UserError naming the first class without any reference (its targets would be NaN).

        Waits for the device; call it once, after the filling.
        """
        held = self.counts if self.null_capacity else self.counts[:-1]
        empty = (held == 0).nonzero().flatten().tolist()
        if empty:
            raise UserError(
                f"ReferenceBank: {len(empty)} classes have no reference (first: {empty[0]}); "
                "expected at least one sample of each class in the filling"
            )
        self._all_nonempty = True

    @torch.no_grad()
    def insert(self, x: State, labels: Int[Tensor, " batch"]) -> None:
        """Put samples into the rings of their classes (labels below num_classes) and of the null class, in order.

        Each pushes out the oldest of a full ring. No loop over classes and no wait for the device.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"samples have shape {tuple(x.shape[1:])}; expected {self.shape}")
        _check_below(labels, self.num_classes)
        rows, labels = x.flatten(1).to(self.device, self._rows.dtype), labels.to(self.device)
        # Pieces of at most one ring: no slot is written twice in a piece, so the order of writing is the order given.
        for piece, piece_labels in zip(rows.split(self.capacity), labels.split(self.capacity), strict=True):
            slot = (self._inserted[piece_labels] + _occurrence(piece_labels)) % self.capacity
            self._write(piece_labels * self.capacity + slot, piece, piece_labels)
        if self.null_capacity:
            for piece in rows.split(self.null_capacity):
                slot = (self._inserted[-1] + torch.arange(len(piece), device=self.device)) % self.null_capacity
                label = torch.full_like(slot, self.num_classes)
                self._write(self.num_classes * self.capacity + slot, piece, label)

    def _write(self, index: Tensor, rows: Tensor, labels: Tensor) -> None:
        self._rows.index_copy_(0, index, rows)
        if not self._all_nonempty:
            # A ring that was empty now has its first row in slot 0: that becomes its centre, for good.
            first = self._rows[labels * self.capacity].float()
            centres = torch.where(self._inserted[labels, None] == 0, first, self._centres[labels])
            self._centres.index_copy_(0, labels, centres)
        # Distances of the rounded rows: they belong to what is stored, not to what was given. One temporary.
        distances = self._centres[labels].sub_(rows).square_().sum(-1)
        self._squared_distances.index_copy_(0, index, distances)
        self._inserted.index_add_(0, labels, torch.ones_like(labels))

    def pick(self, labels: Int[Tensor, " batch"], u: Float[Tensor, " batch"]) -> Float[Tensor, "batch ..."]:
        """One reference per sample, uniform over the ring of its label: row floor(u count), u in [0, 1).

        Float32, on the device of `labels`. The label `num_classes` picks from the null ring.
        """
        self._check(labels)
        own = labels.to(self.device)
        rows = self._rows[own * self.capacity + slots(u.to(self.device), self.counts[own])]
        return rows.to(labels.device, torch.float32).unflatten(1, self.shape)

    def references(self, label: int) -> Float[Tensor, "count ..."]:
        """The references held for one label, in the order of their slots (a view; the stored dtype)."""
        return self._ring(label, int(self.counts[label]))[0].unflatten(1, self.shape)

    def target(self, x_t: State, t: Time, labels: Int[Tensor, " batch"], path: Interpolant) -> State:
        """The StableVM target of each sample over the references of its label (docs/paper.md#stablevm).

        As `targets.stablevm_target`, without gathering the references of the batch. Rows in host memory are
        read in place, ring by ring; rows on an accelerator are gathered in blocks of slots, without a wait
        for the device when `labels` are on the host.
        """
        if x_t.shape[1:] != self.shape:
            raise ValueError(f"x_t has shape {tuple(x_t.shape[1:])} per sample; expected {self.shape}")
        with exact_arithmetic(x_t.device):
            queries = x_t.flatten(1).float()
            alpha, sigma, _, _ = path.coefficients(queries, t)
            alpha, sigma = (c.to(queries).expand(len(queries), 1) for c in (alpha, sigma))
            in_place = self.device.type == "cpu"
            mean = (self._mean_by_ring if in_place else self._mean_by_slot)(queries, alpha, sigma, labels)
            velocity = path.velocity_from_posterior_mean(queries, mean, t)
            return velocity.reshape(x_t.shape).to(x_t.dtype)

    def _mean_by_ring(self, queries: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Sort the batch by label: each ring is read where it lies, once for all samples of its label."""
        labels, order = labels.sort()
        self._check(labels[:: max(1, len(labels) - 1)])  # the lowest and the highest
        order = order.to(queries.device, non_blocking=True)
        queries, alpha, sigma = queries[order], alpha[order], sigma[order]
        groups, counts = torch.unique_consecutive(labels, return_counts=True)
        groups, sizes = groups.tolist(), iter(counts.tolist())
        # As many rings of classes at a time as make one block, so that small ones do not cost by their number; the
        # null ring, of another length, by itself.
        step = max(1, block_entries(queries.device) // (self.capacity * queries.shape[1]))
        classes = [label for label in groups if label < self.num_classes]
        parts = [classes[start : start + step] for start in range(0, len(classes), step)]
        if groups[-1:] == [self.num_classes]:
            parts.append([self.num_classes])
        means, end = [], 0
        for part in parts:
            own_sizes = list(itertools.islice(sizes, len(part)))
            start, end = end, end + sum(own_sizes)
            own = slice(start, end)
            centre = self._centres[labels[own].to(self.device)].to(queries.device)
            blocks = self._rings(part, own_sizes, labels[own], queries)
            means.append(posterior_mean(queries[own], alpha[own], sigma[own], centre, blocks))
        return torch.empty_like(queries).index_copy_(0, order, torch.cat(means))

    def _rings(self, part: list[int], sizes: list[int], labels: Tensor, queries: Tensor) -> Iterator[ReferenceBlock]:
        """The rings of the labels in `part`, each read by as many samples as `sizes` says; `labels` are theirs."""
        device = queries.device
        if len(part) == 1:
            yield from _cut(*self._ring(part[0], int(self.counts[part[0]])), queries)
            return
        own = labels.to(self.device)
        counts = self.counts[own][:, None]
        begins = [label * self.capacity for label in part]
        shortest, longest = (int(count) for count in counts.aminmax())
        rows = [self._rows[begin : begin + longest].to(device, queries.dtype, non_blocking=True) for begin in begins]
        slots = torch.arange(longest, device=self.device)
        distances = self._squared_distances[own[:, None] * self.capacity + slots].to(device)
        yield ReferenceBlock(rows, distances, None if shortest == longest else (slots < counts).to(device), sizes)

    def _mean_by_slot(self, queries: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """Gather some slots of every sample's ring at a time; the null ring is one product with its samples."""
        self._check(labels)
        mean = torch.empty_like(queries)
        # The null ring is the largest by far, so only the samples of its label are multiplied with it; which they are
        # costs no wait where the labels are on the host.
        for is_null in (False, True):
            chosen = ((labels == self.num_classes) == is_null).nonzero().flatten()
            if len(chosen) == 0:
                continue
            index, own = (x.to(queries.device, non_blocking=True) for x in (chosen, labels[chosen]))
            rows = queries[index]
            if is_null:
                valid = torch.arange(self.null_capacity, device=self.device) < self.counts[-1]
                blocks = _cut(*self._ring(self.num_classes, self.null_capacity), rows, valid)
            else:
                blocks = self._gather(own, rows)
            part = posterior_mean(rows, alpha[index], sigma[index], self._centres[own], blocks)
            mean.index_copy_(0, index, part)
        return mean

    def _gather(self, labels: Tensor, queries: Tensor) -> Iterator[ReferenceBlock]:
        counts = self.counts[labels][:, None]
        step = max(1, block_entries(self.device) // queries.numel())
        for start in range(0, self.capacity, step):
            slots = torch.arange(start, min(start + step, self.capacity), device=self.device)
            index = labels[:, None] * self.capacity + slots
            yield ReferenceBlock(self._rows[index].to(queries.dtype), self._squared_distances[index], slots < counts)

    def _check(self, labels: Tensor) -> None:
        _check_below(labels, self.num_classes + (self.null_capacity > 0))

    def _ring(self, label: int, count: int) -> tuple[Tensor, Tensor]:
        """Rows and squared distances of one label: its first `count` slots, views."""
        start = label * self.capacity
        return self._rows[start : start + count], self._squared_distances[start : start + count]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the bank holds, as tensors (safetensors can store them); restored exactly."""
        return {
            "rows": self._rows,
            "squared_distances": self._squared_distances,
            "centres": self._centres,
            "inserted": self._inserted,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore `state_dict()` of a bank of the same sizes and dtype. Raises UserError when they differ."""
        for name, own in self.state_dict().items():
            given = state.get(name)
            if given is None or given.shape != own.shape or given.dtype != own.dtype:
                got = "nothing" if given is None else f"{tuple(given.shape)} {given.dtype}"
                expected = f"{tuple(own.shape)} {own.dtype}"
                raise UserError(f"ReferenceBank state: {name} is {got}; expected {expected}")
            own.copy_(given)
        self._all_nonempty = False


def slots(u: Float[Tensor, " batch"], counts: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """The slot that a uniform number in [0, 1) picks among `counts` filled ones."""
    return torch.minimum((u.double() * counts).long(), counts - 1)


def _check_below(labels: Tensor, limit: int) -> None:
    """Raise ValueError on a label outside 0..limit - 1; on an accelerator a device-side assertion, without a wait."""
    inside = ((labels >= 0) & (labels < limit)).all()
    if labels.device.type != "cpu":
        torch._assert_async(inside, f"a label is outside 0..{limit - 1}")
    elif not inside:
        raise ValueError(f"labels lie in {int(labels.min())}..{int(labels.max())}; expected 0..{limit - 1}")


def _occurrence(labels: Tensor) -> Tensor:
    """How many times each label came before in the batch: [3, 5, 3, 3] -> [0, 0, 1, 2]."""
    ordered, order = labels.sort(stable=True)
    rank = torch.arange(len(labels), device=labels.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(rank).index_copy_(0, order, rank)


def _cut(
    rows: Tensor, squared_distances: Tensor, queries: Tensor, mask: Tensor | None = None
) -> Iterator[ReferenceBlock]:
    """Blocks of shared rows on the device of the queries; views where nothing changes."""
    step = max(1, block_entries(queries.device) // rows.shape[1])
    dtype = queries.dtype
    if rows.dtype == torch.float16 and rows.device == queries.device and rows.device.type == "cuda":
        # Read as they are (`targets.product_with_half`). A block then costs no memory; longer sums would lose digits.
        dtype, step = torch.float16, 4 * step
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        block = rows[part].to(queries.device, dtype, non_blocking=True)
        distances = squared_distances[part].to(queries.device, non_blocking=True)
        yield ReferenceBlock(block, distances, None if mask is None else mask[part])
