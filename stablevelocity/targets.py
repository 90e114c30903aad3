"""Training targets: CFM, StableVM and STF (docs/paper.md#stablevm).

CFM regresses on the velocity of one pair (x_0, eps). StableVM replaces it by the posterior mean of that
velocity over n references, of which one was noised: the same minimiser, and a variance of about 1/n of CFM's.

The velocity is affine in x_0, so only the mean of the references under w_k ~ exp(-||x_t - alpha x_k||^2/(2 sigma^2)) is
needed. With the square opened around any centre c it is attention: query y = x_t - alpha c, keys and values x_k, logit
(alpha y.x_k - alpha^2 ||x_k - c||^2/2)/sigma^2. One product of matrices gives the logits, one the mean; no array of the
size of all differences x_t - x_k is built. A centre among the references (the first one here) keeps the two terms small
when the references lie close together, and with them the rounding of float32. References that are wide (one set per
sample) or stored in half precision are read in blocks with an online softmax.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stablevelocity.interpolants import Interpolant, State, Time

# Numbers in a block of references read at once: on a CPU what stays in its caches (4 MB in float32), on an
# accelerator enough to keep it busy (64 MB).
CPU_BLOCK, ACCELERATOR_BLOCK = 2**20, 2**24

# Each part of a float32 number carries the next 11 bits of it.
_HALF_BITS = 2.0**11


class ReferenceBlock(NamedTuple):
    """Some references: rows (n, d) shared by the batch, (B, n, d) per sample, or a list of (n, d), one for each run of
    samples that share them (their lengths are `sizes`); ||x_k - c||^2 for the centre c in use, (n,) or (B, n); and a
    mask of those that count, of either shape, or None for all. Rows are in the precision of the arithmetic; shared ones
    may be in float16 on a GPU (`product_with_half`).
    """

    rows: Tensor | list[Tensor]
    squared_distances: Tensor
    mask: Tensor | None
    sizes: list[int] | None = None

    def products(self, queries: Tensor) -> Tensor:
        """Inner products (B, n) of the queries (B, d) with their references."""
        if isinstance(self.rows, list):
            return torch.cat([own @ rows.mT for own, rows in self._runs(queries)])
        if self.rows.dtype == torch.float16:
            return product_with_half(queries, self.rows.mT)
        if self.rows.ndim == 2:
            return queries @ self.rows.mT
        # Row vectors in both batched products: column vectors take a path that is ten times slower on a CPU.
        return (queries[:, None, :] @ self.rows.mT).squeeze(1)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Sums (B, d) of the references, weighted by (B, n)."""
        if isinstance(self.rows, list):
            return torch.cat([own @ rows for own, rows in self._runs(weights)])
        if self.rows.dtype == torch.float16:
            return product_with_half(weights, self.rows)
        return weights @ self.rows if self.rows.ndim == 2 else (weights[:, None, :] @ self.rows).squeeze(1)

    def _runs(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.sizes is not None
        return zip(values.split(self.sizes), self.rows, strict=True)


def half_parts(values: Float[Tensor, "... k"]) -> tuple[list[Float[Tensor, "... k"]], Float[Tensor, "... 1"]]:
    """(parts p_i, scale s) with values = s (p_0 + p_1/2^11 + p_2/2^22): three float16 numbers hold a float32 one."""
    scale = values.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    rest = values / scale
    parts = []
    for _ in range(3):
        parts.append(rest.half())
        rest = (rest - parts[-1]) * _HALF_BITS
    return parts, scale


def product_with_half(values: Float[Tensor, "b k"], rows: Float[Tensor, "k m"]) -> Float[Tensor, "b m"]:
    """values @ rows for float32 values and float16 rows on a GPU, summed in float32.

    A product in float32 would first widen the rows, which are many, and run without the matrix units. The values, which
    are few, are cut into float16 parts instead: their products with float16 numbers are exact in float32. (Rows of a
    sample's own, in batched products, are faster widened: measured on an H100, benchmarks/GPU.md.)
    """
    parts, scale = half_parts(values)
    product = torch.mm(torch.cat(parts), rows, out_dtype=torch.float32)
    high, middle, low = product.chunk(3)
    return (high + (middle + low / _HALF_BITS) / _HALF_BITS) * scale


def cfm_target(x0: State, noise: State, t: Time, path: Interpolant) -> State:
    """The CFM target alpha' x_0 + sigma' eps (docs/paper.md#conventions), exact at every t; eps - x_0 if linear."""
    return path.velocity_from_noise(x0, noise, t)


def stablevm_target(
    x_t: State, t: Time, references: Float[Tensor, "..."], path: Interpolant, *, mask: Bool[Tensor, "..."] | None = None
) -> State:
    """The StableVM target sum_k w_k v_t(x_t | x_0^k), w = softmax_k(-||x_t - alpha x_0^k||^2/(2 sigma^2)).

    `references` is (B, n, ...), one set per sample, or (n, ...), shared by the batch; `mask` (B, n) or (n,)
    is true for those that count. x_t must be drawn from the mixture over the references: pick one of them
    uniformly and noise it (docs/paper.md#stablevm).

    No gradient flows through. The arithmetic is float32 (float64 for float64 inputs) whatever the autocast or the TF32
    setting; inside torch.compile the TF32 setting of the caller holds. At t = 0 all weight is on the nearest reference.
    A sample whose references are all masked gets NaN. Raises ValueError on shapes that disagree.
    """
    with exact_arithmetic(x_t.device):
        alpha, sigma, _, _ = path.coefficients(x_t.flatten(1), t)
        queries = x_t.flatten(1).to(torch.promote_types(x_t.dtype, torch.float32))
        alpha, sigma = (c.to(queries).expand(len(queries), 1) for c in (alpha, sigma))
        parts = [
            posterior_mean(queries[part], alpha[part], sigma[part], centre, _read(rows, own_mask, centre))
            for part, rows, own_mask, centre in _groups(_flatten(references, mask, x_t), mask, queries)
        ]
        mean = torch.cat(parts)
        return path.velocity_from_posterior_mean(queries, mean, t).reshape(x_t.shape).to(x_t.dtype)


def stf_target(
    x_t: State, t: Time, references: Float[Tensor, "..."], path: Interpolant, *, mask: Bool[Tensor, "..."] | None = None
) -> State:
    """The stable target field of Xu et al. (2023), in velocities: StableVM's formula for another input.

    x_t must be drawn from the **first** reference, references[:, 0], and the rest be fresh draws. As the references are
    exchangeable, (x_t, target) has the same joint distribution as in StableVM; tests/test_targets.py measures it.
    """
    return stablevm_target(x_t, t, references, path, mask=mask)


def posterior_mean(
    queries: Float[Tensor, "batch dimension"],
    alpha: Float[Tensor, "..."],
    sigma: Float[Tensor, "..."],
    centre: Float[Tensor, "..."],
    blocks: Iterable[ReferenceBlock],
) -> Float[Tensor, "batch dimension"]:
    """E[x_0 | x_t] when x_0 is uniform on the references, read block by block with an online softmax.

    `alpha` and `sigma` are scalars or (B, 1), `centre` is (d,) or (B, d). The largest exponent seen so far is
    subtracted before the division by sigma^2, so exponents are at most 0 for any dimension and any t, and
    none is clamped.
    """
    # At sigma = 0 the smallest positive number in its place gives the limit, the nearest reference, not 0/0.
    precision = 1 / (sigma**2).clamp_min(torch.finfo(queries.dtype).tiny)
    offsets = torch.addcmul(queries, alpha, centre, value=-1)
    top = total = mean = None
    for block in blocks:
        energy = torch.addcmul(block.products(offsets), alpha / 2, block.squared_distances, value=-1).mul_(alpha)
        if block.mask is not None:
            energy.masked_fill_(~block.mask, -torch.inf)
        peak = energy.amax(-1, keepdim=True)
        peak = peak if top is None else torch.maximum(top, peak)
        # A sample with no reference yet keeps its peak at -inf; 0 stands in, as -inf - -inf is not a number.
        shift = peak if block.mask is None else torch.where(torch.isneginf(peak), 0.0, peak)
        weights = energy.sub_(shift).mul_(precision).exp_()
        weighted = block.weighted_sum(weights)
        if top is None or total is None or mean is None:
            total, mean = weights.sum(-1, keepdim=True), weighted
        else:
            decay = torch.exp((top - shift) * precision)
            total, mean = total * decay + weights.sum(-1, keepdim=True), mean * decay + weighted
        top = peak
    if total is None or mean is None:
        raise ValueError("posterior_mean: no references given; expected at least one")
    return mean.div_(total)


def block_entries(device: torch.device) -> int:
    """Numbers in a block of references on this device."""
    return CPU_BLOCK if device.type == "cpu" else ACCELERATOR_BLOCK


@contextlib.contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """No gradient, no autocast, and float32 products without TF32 or bfloat16 shortcuts.

    At d = 4096 logits are in the thousands; the 10-bit mantissa of TF32 would put errors of several units there.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        if torch.compiler.is_compiling():
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def _flatten(references: Tensor, mask: Tensor | None, x_t: Tensor) -> Tensor:
    """References as rows (n, d) or (B, n, d), after a check of all shapes."""
    batch, shape = x_t.shape[0], x_t.shape[1:]
    shared = references.shape[1:] == shape
    if not shared and (references.ndim < 2 or references.shape[0] != batch or references.shape[2:] != shape):
        raise ValueError(
            f"references have shape {tuple(references.shape)}; expected ({batch}, n, ...) or (n, ...) "
            f"for x_t {tuple(x_t.shape)}"
        )
    rows = references.flatten(1) if shared else references.flatten(2)
    count = rows.shape[-2]
    if mask is not None and mask.shape not in ((count,), (batch, count)):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; expected ({count},) or ({batch}, {count})")
    return rows


def _groups(
    rows: Tensor, mask: Tensor | None, queries: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor | None, Tensor]]:
    """Parts of the batch whose references fit one block: (which samples, rows, mask, centre).

    Rows are (n, d) where samples share them, the whole batch or a part of a single sample, else (b, n, d).
    """
    if rows.ndim == 2:
        yield slice(None), rows, mask, rows[0].to(queries.dtype)
        return
    size = max(1, block_entries(rows.device) // rows[0].numel())
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        own, own_mask = rows[part], mask[part] if mask is not None and mask.ndim == 2 else mask
        if len(own) == 1:
            own, own_mask = own[0], own_mask if own_mask is None else own_mask.reshape(-1)
        yield part, own, own_mask, own[..., 0, :].to(queries.dtype)


def _read(rows: Tensor, mask: Tensor | None, centre: Tensor) -> Iterator[ReferenceBlock]:
    """Blocks of references in the precision of the centre; views where no conversion is needed."""
    count = rows.shape[-2]
    step = max(1, block_entries(rows.device) // (rows.numel() // count))
    for start in range(0, count, step):
        part = slice(start, start + step)
        block = rows[..., part, :].to(centre.dtype)
        squared_distances = (block - centre[..., None, :]).square_().sum(-1)
        yield ReferenceBlock(block, squared_distances, None if mask is None else mask[..., part])
