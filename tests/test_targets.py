"""Targets: against the sum written out in float64, the closed-form velocity, and each other."""

import importlib.util
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stablevelocity import targets
from stablevelocity.gmm import paper_mixture
from stablevelocity.interpolants import CosinePath, FunctionPath, LinearPath
from stablevelocity.targets import cfm_target, half_parts, product_with_half, stablevm_target, stf_target

PATHS = [LinearPath(), CosinePath(), FunctionPath(lambda t: 1 - t**2, lambda t: t * (2 - t))]
IDS = ["linear", "cosine", "function"]


def written_out(x_t, t, references, path, mask=None):
    """sum_k w_k v_t(x_t | x_0^k), term by term in float64; references (B, n, d)."""
    rows = []
    for b in range(len(x_t)):
        time = float(t[b])
        alpha, sigma = path.alpha(time), path.sigma(time)
        x, candidates = x_t[b].double(), references[b].double()
        if mask is not None:
            candidates = candidates[mask[b]]
        weights = (-(x - alpha * candidates).square().flatten(1).sum(1) / (2 * sigma**2)).softmax(0)
        velocities = path.sigma_dot(time) / sigma * (x - alpha * candidates) + path.alpha_dot(time) * candidates
        rows.append(torch.tensordot(weights, velocities, 1))
    return torch.stack(rows)


def drawn(shape, count, batch, seed=0, spread=1.0, low=0.05, high=0.95):
    """References per sample, the noised one picked uniformly, float64."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.randn(batch, 1, *shape, dtype=torch.float64, generator=g)
    references = centre + spread * torch.randn(batch, count, *shape, dtype=torch.float64, generator=g)
    t = low + (high - low) * torch.rand(batch, dtype=torch.float64, generator=g)
    index = torch.randint(0, count, (batch,), generator=g)
    x0 = references[torch.arange(batch), index]
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=g)
    return references, t, index, x0, noise


@pytest.mark.parametrize("path", PATHS, ids=IDS)
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_target_is_the_weighted_sum_of_conditional_velocities(path, spread):
    references, t, _, x0, noise = drawn((3, 2, 2), 9, 20, spread=spread)
    x_t = path.interpolate(x0, noise, t)
    truth = written_out(x_t, t, references, path)
    assert torch.allclose(stablevm_target(x_t, t, references, path), truth, rtol=1e-10, atol=1e-10)
    shared = references[0].expand_as(references)
    result = stablevm_target(x_t, t, references[0], path)
    assert torch.allclose(result, written_out(x_t, t, shared, path), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
def test_references_read_in_blocks_give_the_same_target(masked, monkeypatch):
    path = LinearPath()
    references, t, index, x0, noise = drawn((4,), 7, 12)
    mask = None
    if masked:
        # The first blocks of some samples are wholly masked.
        mask = torch.arange(7) >= torch.arange(12)[:, None] % 6
        mask[torch.arange(12), index] = True
    x_t = path.interpolate(x0, noise, t)
    truth = written_out(x_t, t, references, path, mask)
    # One reference, three references, three samples with all their references at a time.
    for numbers in (4, 3 * 4, 3 * 7 * 4):
        monkeypatch.setattr(targets, "CPU_BLOCK", numbers)
        assert torch.allclose(stablevm_target(x_t, t, references, path, mask=mask), truth, rtol=1e-10, atol=1e-10)


def test_masked_references_do_not_count():
    path = LinearPath()
    references, t, index, x0, noise = drawn((4,), 7, 12)
    mask = torch.rand(12, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[torch.arange(12), index] = True
    x_t = path.interpolate(x0, noise, t)
    truth = written_out(x_t, t, references, path, mask)
    assert torch.allclose(stablevm_target(x_t, t, references, path, mask=mask), truth, rtol=1e-10, atol=1e-10)
    one = stablevm_target(x_t, t, references[0], path, mask=mask[0])
    assert torch.allclose(one, stablevm_target(x_t, t, references[0][mask[0]], path), rtol=1e-10, atol=1e-10)


def test_a_sample_without_any_reference_is_not_a_number_and_spares_the_others():
    references, t, _, x0, noise = drawn((4,), 5, 3)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False
    result = stablevm_target(LinearPath().interpolate(x0, noise, t), t, references, LinearPath(), mask=mask)
    assert result.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_one_reference_gives_the_cfm_target_exactly(path, dtype):
    references, t, _, x0, noise = (value.to(dtype) for value in drawn((5,), 1, 30))
    x_t = path.interpolate(x0, noise, t)
    assert torch.equal(stablevm_target(x_t, t, references, path), path.conditional_velocity(x_t, x0, t))
    # The other way to write CFM, from the noise, agrees but for the rounding of x_t divided by sigma >= 0.05.
    eps = torch.finfo(dtype).eps
    assert torch.allclose(cfm_target(x0, noise, t, path), path.conditional_velocity(x_t, x0, t), atol=1000 * eps)


def test_cfm_target_of_the_linear_path_is_noise_minus_data_at_the_ends_too():
    x0, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cfm_target(x0, noise, torch.tensor([0.0, 0.5, 1.0]), LinearPath()), noise - x0)


def gmm_draws(path, t, count, batch, seed, noised="picked"):
    """x_t, references (B, n, 2) and the closed-form velocity of a 2-dimensional mixture."""
    mixture, g = paper_mixture(2), torch.Generator().manual_seed(seed)
    references = mixture.sample(batch * count, g).reshape(batch, count, 2)
    noise = torch.randn(batch, 2, dtype=torch.float64, generator=g)
    if noised == "picked":
        x0 = references[torch.arange(batch), torch.randint(0, count, (batch,), generator=g)]
    elif noised == "first":
        x0 = references[:, 0]
    else:
        x0 = mixture.sample(batch, g)
    x_t = path.interpolate(x0, noise, t)
    return x_t, references, mixture.velocity(x_t, t, path)


def projection(target, velocity):
    """sum target.v / sum |v|^2, which is 1 if E[target | x_t] = v, with its standard error."""
    inner, square = (target * velocity).sum(-1), velocity.square().sum(-1)
    ratio = inner.sum() / square.sum()
    error = (inner - ratio * square).std() / math.sqrt(len(inner)) / square.mean()
    return ratio.item(), error.item()


@pytest.mark.parametrize("path", PATHS[:2], ids=IDS[:2])
@pytest.mark.parametrize("t", [0.5, 0.7])
def test_target_is_unbiased(path, t):
    x_t, references, velocity = gmm_draws(path, t, 8, 150_000, seed=0)
    ratio, error = projection(stablevm_target(x_t, t, references, path), velocity)
    # Four standard errors must both hold the truth and be small enough to show a bias of 1 %.
    assert 4 * error < 0.01
    assert abs(ratio - 1) < 4 * error


def test_a_noised_sample_that_is_not_among_the_references_biases_the_target():
    # The same statistic sees the mistake that a wrong bank order would be.
    path, t = LinearPath(), 0.5
    x_t, references, velocity = gmm_draws(path, t, 8, 150_000, seed=0, noised="stranger")
    ratio, error = projection(stablevm_target(x_t, t, references, path), velocity)
    assert abs(ratio - 1) > 20 * error


def test_target_converges_to_the_closed_form_velocity_as_references_grow():
    path, t, mixture = LinearPath(), 0.5, paper_mixture(2)
    g = torch.Generator().manual_seed(3)
    x_t = path.interpolate(mixture.sample(200, g), torch.randn(200, 2, dtype=torch.float64, generator=g), t)
    velocity = mixture.velocity(x_t, t, path)
    errors = []
    for count in (300, 3_000, 30_000):
        target = stablevm_target(x_t, t, mixture.sample(count, g), path)
        errors.append((target - velocity).square().sum(-1).mean().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3 * velocity.square().sum(-1).mean()


def test_variance_falls_as_one_over_n():
    path, t = LinearPath(), 0.6
    counts = [32, 64, 128, 256, 512, 1024]
    variances = []
    for count in counts:
        x_t, references, velocity = gmm_draws(path, t, count, 2**21 // count, seed=count)
        variances.append((stablevm_target(x_t, t, references, path) - velocity).square().sum(-1).mean())
    x, y = torch.tensor(counts).double().log(), torch.stack(variances).log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert slope.item() == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("t", [0.5, 0.7])
def test_stf_and_stablevm_do_not_differ_in_bias_or_variance(t):
    # The measured answer to whether drawing x_t from the first reference or from a random one matters:
    # differences of bias and of variance are zero within four standard errors, and those are below 1 % of the
    # velocity and 2 % of the variance.
    path, batch = LinearPath(), 200_000
    results = {}
    for name, noised, target in (("stablevm", "picked", stablevm_target), ("stf", "first", stf_target)):
        x_t, references, velocity = gmm_draws(path, t, 8, batch, seed=7 + len(name), noised=noised)
        value = target(x_t, t, references, path)
        spread = (value - velocity).square().sum(-1)
        results[name] = (*projection(value, velocity), spread.mean().item(), spread.std().item() / math.sqrt(batch))
    (bias, bias_error, variance, error), (other_bias, other_bias_error, other, other_error) = results.values()
    joint_bias, joint = math.hypot(bias_error, other_bias_error), math.hypot(error, other_error)
    assert abs(bias - other_bias) < 4 * joint_bias < 0.01
    assert abs(variance - other) < 4 * joint < 0.02 * variance


@pytest.mark.parametrize("t", [1e-4, 0.02, 0.5, 0.98, 0.9999])
@pytest.mark.parametrize("spread", [0.003, 1.0])
def test_float32_stays_right_in_65536_dimensions_and_near_both_ends(t, spread):
    path = LinearPath()
    references, _, _, x0, noise = drawn((65_536,), 6, 2, spread=spread)
    references, x0, noise = (value.float() for value in (references, x0, noise))
    x_t = path.interpolate(x0, noise, t)
    times = torch.full((2,), t)
    truth = written_out(x_t, times, references, path)
    error = (stablevm_target(x_t, times, references, path) - truth).abs().max()
    # Two roundings of the size of x_t divided by sigma come with float32 states; 1e-5 for the weights.
    assert error < 1e-5 + 8 * torch.finfo(torch.float32).eps * x_t.abs().max() / t


def test_weights_are_shifted_and_not_clamped():
    # x_t far from all references: exponents of -5e7 and -5e7 - 1 must give weights 1/(1 + e^-1) and the rest.
    path, t = LinearPath(), 1e-3
    sigma, alpha = t, 1 - t
    far = 10.0
    gap = sigma**2 / far
    references = torch.tensor([[[0.0], [-gap / alpha]]], dtype=torch.float64)
    x_t = torch.tensor([[far]], dtype=torch.float64)
    energies = -(x_t - alpha * references[0, :, 0]).square() / (2 * sigma**2)
    assert energies.max() < -4e7
    difference = far * gap / sigma**2 + gap**2 / (2 * sigma**2)
    weight = 1 / (1 + math.exp(-difference))
    mean = (1 - weight) * references[0, 1, 0]
    truth = path.velocity_from_posterior_mean(x_t, mean.reshape(1, 1), t)
    # The mean is of size 1e-7 beside far/sigma = 1e4 in the velocity: compare what the weights move.
    result = stablevm_target(x_t, t, references, path)
    moved = (result - path.velocity_from_posterior_mean(x_t, torch.zeros(1, 1).double(), t)).item()
    expected = (truth - path.velocity_from_posterior_mean(x_t, torch.zeros(1, 1).double(), t)).item()
    assert moved == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("path", PATHS[:2], ids=IDS[:2])
def test_both_ends_have_their_limits(path):
    references, _, _, x0, noise = (value.float() for value in drawn((6,), 5, 4))
    at_data = stablevm_target(x0, 0.0, references, path)
    assert torch.equal(at_data, path.alpha_dot(0.0) * x0)
    at_noise = stablevm_target(noise, torch.ones(4), references, path)
    # All references weigh the same: alpha' mean + sigma' x_t.
    limit = path.alpha_dot(1.0) * references.mean(1) + path.sigma_dot(1.0) * noise
    assert torch.allclose(at_noise, limit, atol=1e-6)


def test_half_precision_references_are_read_in_float32():
    path = LinearPath()
    references, t, _, _, noise = drawn((64,), 600, 8, spread=0.2)
    stored = references.to(torch.float16)
    x_t = path.interpolate(stored[:, 3].float(), noise.float(), t.float())
    truth = written_out(x_t, t.float(), stored, path)
    assert torch.allclose(stablevm_target(x_t, t.float(), stored, path), truth.float(), atol=2e-4)
    assert torch.equal(
        stablevm_target(x_t, t.float(), stored, path), stablevm_target(x_t, t.float(), stored.float(), path)
    )


def test_autocast_tf32_and_gradients_stay_outside():
    path = LinearPath()
    references, t, _, x0, noise = (value.float() for value in drawn((256,), 20, 6, spread=0.1))
    x_t = path.interpolate(x0, noise, t)
    plain = stablevm_target(x_t, t, references, path)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = stablevm_target(x_t.requires_grad_(), t, references.requires_grad_(), path)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(inside, plain)
    assert not inside.requires_grad


def test_shapes_that_disagree_are_refused():
    x_t, t = torch.zeros(4, 3, 2), torch.full((4,), 0.5)
    for references in (torch.zeros(5, 8, 3, 2), torch.zeros(8, 3), torch.zeros(4, 8, 2, 3)):
        with pytest.raises(ValueError, match="references have shape"):
            stablevm_target(x_t, t, references, LinearPath())
    with pytest.raises(ValueError, match="mask has shape"):
        stablevm_target(x_t, t, torch.zeros(4, 8, 3, 2), LinearPath(), mask=torch.ones(4, 7, dtype=torch.bool))


class LargestTensor(TorchDispatchMode):
    """Records the largest storage that any operation inside the block makes, in numbers."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for value in result if isinstance(result, tuple | list) else [result]:
            # Views share the storage of their argument: they cost nothing.
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in given:
                self.numbers = max(self.numbers, value.numel())
        return result


def test_no_temporary_of_the_size_of_all_differences_is_built():
    batch, count, dimension = 64, 256, 2048
    x_t, t, path = torch.randn(batch, dimension), torch.full((batch,), 0.7), LinearPath()
    for references in (torch.randn(count, dimension), torch.randn(batch, count, dimension)):
        with LargestTensor() as largest:
            stablevm_target(x_t, t, references, path)
        assert largest.numbers <= batch * count * dimension / 8


def unchecked(module):
    """A module of the library without the run-time shape checks of the tests, which no compiler traces
    through.
    """
    origin = importlib.util.find_spec(f"stablevelocity.{module}").origin
    spec = importlib.util.spec_from_file_location(f"unchecked_{module}", origin)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("name", IDS)
def test_target_compiles_without_graph_breaks(name):
    # The graph is captured by dynamo and run as it is: what a back end makes of it is not this library's
    # matter.
    compiled = torch.compile(unchecked("targets").stablevm_target, fullgraph=True, backend="aot_eager")
    interpolants = unchecked("interpolants")
    path = {
        "linear": interpolants.LinearPath,
        "cosine": interpolants.CosinePath,
        "function": lambda: interpolants.FunctionPath(lambda t: 1 - t**2, lambda t: t * (2 - t)),
    }[name]()
    references, t, _, x0, noise = (value.float() for value in drawn((3, 4), 16, 8))
    x_t = path.interpolate(x0, noise, t)
    truth = written_out(x_t, t, references, path).float()
    assert torch.allclose(compiled(x_t, t, references, path), truth, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: none here, path not tested")
def test_cuda_gives_the_float64_target_even_with_tf32_allowed():
    path = LinearPath()
    references, t, _, x0, noise = (value.float() for value in drawn((4096,), 64, 8, spread=0.05))
    x_t = path.interpolate(x0, noise, t)
    truth = written_out(x_t, t, references, path)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        result = stablevm_target(x_t.cuda(), t.cuda(), references.cuda(), path).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.allclose(result, truth.float(), atol=1e-3)


def test_three_half_parts_hold_a_float32_number():
    """What `product_with_half` multiplies: 33 bits of each value, relative to the largest of its row."""
    values = torch.randn(7, 500, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 4, 7)[:, None]
    values[3, 5] = 0
    parts, scale = half_parts(values)
    assert all(part.dtype == torch.float16 for part in parts)
    high, middle, low = (part.double() for part in parts)
    whole = scale.double() * (high + middle / 2**11 + low / 2**22)
    # The division by the scale and its inverse round once each (2^-24 of the value); the parts add 2^-33 of the row's.
    assert ((whole - values.double()).abs() <= 2**-23 * values.abs() + 2**-32 * scale.double()).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: none here, path not tested")
def test_cuda_product_with_half_rows_is_as_exact_as_float32():
    g = torch.Generator().manual_seed(0)
    rows, values = torch.randn(4096, 700, generator=g).half(), torch.randn(13, 4096, generator=g)
    product = product_with_half(values.cuda(), rows.cuda()).cpu()
    exact = values.double() @ rows.double()
    # A sum of 4,096 products in float32: 2^-24 for each of some 256 partial sums, of the size of the sum's own spread.
    assert (product - exact).abs().max() <= 256 * 2**-24 * exact.std()
