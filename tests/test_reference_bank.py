"""The bank: against queues of Python, against targets of gathered references, bit for bit where it promises so."""

from collections import deque

import pytest
import safetensors.torch
import torch
from test_targets import LargestTensor, written_out

from stablevelocity import targets
from stablevelocity.errors import UserError
from stablevelocity.interpolants import CosinePath, LinearPath
from stablevelocity.reference_bank import ReferenceBank
from stablevelocity.targets import stablevm_target

CLASSES, CAPACITY, SHAPE = 4, 6, (2, 3)


def filled(null_capacity=10, dtype=torch.float32, per_class=CAPACITY, spread=1.0, shape=SHAPE, seed=0):
    """A bank with `per_class` rows of each class."""
    bank = ReferenceBank(CLASSES, CAPACITY, shape, dtype, null_capacity=null_capacity)
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, *shape, generator=g)
    labels = torch.arange(CLASSES).repeat(per_class)
    bank.insert(centres[labels] + spread * torch.randn(len(labels), *shape, generator=g), labels)
    return bank


def batch(bank, size=24, seed=1, path=None, low=0.3):
    """Labels (null included), uniforms and noised picks as the trainer makes them."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, bank.num_classes + (bank.null_capacity > 0), (size,), generator=g)
    u = torch.rand(size, generator=g)
    t = low + (1 - low) * torch.rand(size, generator=g)
    noise = torch.randn(size, *bank.shape, generator=g)
    x0 = bank.pick(labels, u)
    return (path or LinearPath()).interpolate(x0, noise, t), t, labels, x0


def gathered(bank, labels):
    """References (B, n, ...) and mask (B, n), gathered one sample at a time."""
    rings = [bank.references(int(label)).float() for label in labels]
    width = max(len(ring) for ring in rings)
    references = torch.zeros(len(rings), width, *bank.shape)
    mask = torch.zeros(len(rings), width, dtype=torch.bool)
    for b, ring in enumerate(rings):
        references[b, : len(ring)], mask[b, : len(ring)] = ring, True
    return references, mask


@pytest.mark.parametrize("sizes", [[1] * 40, [7, 7, 7, 7], [50], [3, 40, 2, 11]])
def test_each_ring_keeps_the_last_rows_of_its_class_and_the_null_ring_those_of_all(sizes):
    bank, g = ReferenceBank(CLASSES, CAPACITY, (1,), null_capacity=10), torch.Generator().manual_seed(0)
    queues = [deque(maxlen=CAPACITY) for _ in range(CLASSES)] + [deque(maxlen=10)]
    number = 0
    for size in sizes:
        # Few classes, so that one batch holds a class several times, or more often than its ring has slots.
        labels = torch.randint(0, CLASSES - 1, (size,), generator=g)
        values = torch.arange(number, number + size).float()
        number += size
        bank.insert(values[:, None], labels)
        for value, label in zip(values.tolist(), labels.tolist(), strict=True):
            queues[label].append(value)
            queues[-1].append(value)
        assert bank.counts.tolist() == [len(queue) for queue in queues]
        for label, queue in enumerate(queues):
            assert sorted(bank.references(label).flatten().tolist()) == list(queue)


def test_the_oldest_row_goes_first_slot_by_slot():
    bank = ReferenceBank(1, 3, (1,))
    for value in range(5):
        bank.insert(torch.tensor([[float(value)]]), torch.tensor([0]))
    assert bank.references(0).flatten().tolist() == [3.0, 4.0, 2.0]


def test_picks_are_uniform_over_the_rows_held():
    bank = filled(per_class=4)
    for label, count in ((2, 4), (CLASSES, 10)):
        # One u in the middle of each of `count` equal parts of [0, 1) picks each row once.
        u = (torch.arange(count) + 0.5) / count
        picks = bank.pick(torch.full((count,), label), u)
        assert torch.equal(picks, bank.references(label))
    last = bank.pick(torch.tensor([1, 1]), torch.tensor([0.0, 1 - 2**-24]))
    assert torch.equal(last, bank.references(1)[[0, -1]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_noised_sample_is_among_its_references_bit_for_bit(dtype):
    bank = filled(dtype=dtype)
    _, _, labels, x0 = batch(bank)
    for label, row in zip(labels, x0, strict=True):
        assert (bank.references(int(label)).float() == row).flatten(1).all(1).any()


@pytest.mark.parametrize("null_capacity", [0, 10])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("path", [LinearPath(), CosinePath()], ids=["linear", "cosine"])
@pytest.mark.parametrize("per_class", [3, CAPACITY])
def test_target_is_that_of_the_gathered_references(null_capacity, dtype, path, per_class):
    bank = filled(null_capacity, dtype, per_class, spread=0.5)
    x_t, t, labels, _ = batch(bank, path=path)
    references, mask = gathered(bank, labels)
    truth = written_out(x_t, t, references, path, mask).float()
    assert torch.allclose(bank.target(x_t, t, labels, path), truth, atol=2e-5)
    assert torch.allclose(stablevm_target(x_t, t, references, path, mask=mask), truth, atol=2e-5)


@pytest.mark.parametrize("per_class", [3, CAPACITY])
def test_reading_by_slot_gives_the_target_of_reading_by_label(per_class, monkeypatch):
    # What an accelerator runs, run here; blocks of two slots, so that the softmax is online.
    bank = filled(per_class=per_class, spread=0.5)
    x_t, t, labels, _ = batch(bank)
    alpha, sigma, _, _ = LinearPath().coefficients(x_t.flatten(1), t)
    monkeypatch.setattr(targets, "CPU_BLOCK", 2 * x_t.numel())
    mean = bank._mean_by_slot(x_t.flatten(1), alpha, sigma, labels).reshape(x_t.shape)
    slotwise = LinearPath().velocity_from_posterior_mean(x_t, mean, t)
    assert torch.allclose(slotwise, bank.target(x_t, t, labels, LinearPath()), atol=1e-5)


def test_close_to_the_data_the_target_is_the_cfm_target_of_the_pick():
    # One reference dominates at small t: a pick from another ring or slot than the target reads would show.
    bank = filled()
    for wrong_order in (False, True):
        x_t, t, labels, x0 = batch(bank, size=60, low=0.0)
        t = 0.02 + 0 * t
        g = torch.Generator().manual_seed(5)
        x_t = LinearPath().interpolate(x0, torch.randn(x0.shape, generator=g), t)
        read = (labels + 1) % CLASSES if wrong_order else labels
        target = bank.target(x_t, t, read, LinearPath())
        single = LinearPath().conditional_velocity(x_t, x0, t)
        assert torch.allclose(target, single, atol=1e-3) is not wrong_order


def test_target_over_the_bank_is_unbiased_for_the_law_of_the_references():
    # All references are fresh draws of N(0, I/4): the closed-form velocity must come out, a 1 % bias would show.
    path, t, variance = LinearPath(), 0.7, 0.25
    g = torch.Generator().manual_seed(2)
    inner, square = [], []
    for _ in range(60):
        bank = ReferenceBank(50, 32, (2,))
        labels = torch.arange(50).repeat(32)
        bank.insert(variance**0.5 * torch.randn(1600, 2, generator=g), labels)
        # One sample per class and bank: those of one class share references and are not independent.
        chosen = torch.arange(50)
        x0 = bank.pick(chosen, torch.rand(50, generator=g))
        x_t = path.interpolate(x0, torch.randn(50, 2, generator=g), t)
        slope = (t - (1 - t) * variance) / ((1 - t) ** 2 * variance + t**2)
        velocity = slope * x_t
        inner.append((bank.target(x_t, t, chosen, path) * velocity).sum(1))
        square.append(velocity.square().sum(1))
    inner, square = torch.cat(inner).double(), torch.cat(square).double()
    ratio = inner.sum() / square.sum()
    error = (inner - ratio * square).std() / len(inner) ** 0.5 / square.mean()
    assert 4 * error < 0.01
    assert (ratio - 1).abs() < 4 * error


def test_squared_distances_stay_in_step_with_the_rows():
    bank, g = ReferenceBank(CLASSES, CAPACITY, SHAPE, torch.float16, null_capacity=9), torch.Generator().manual_seed(4)
    first = {}
    for _ in range(10):
        labels = torch.randint(0, CLASSES, (13,), generator=g)
        x = torch.randn(13, *SHAPE, generator=g)
        bank.insert(x, labels)
        for row, label in zip(x.half().float(), labels.tolist(), strict=True):
            first.setdefault(label, row)
            first.setdefault(CLASSES, row)
        for label in range(CLASSES + 1):
            count = int(bank.counts[label])
            rows, distances = bank._ring(label, count)
            if count:
                truth = (rows.float() - first[label].flatten()).square().sum(1)
                assert torch.allclose(distances, truth, rtol=1e-6)


def test_close_references_are_told_apart_better_than_by_differences_in_float32():
    bank = filled(spread=0.02, shape=(4, 32, 32))
    x_t, t, labels, _ = batch(bank, low=0.5)
    references, _ = gathered(bank, labels % CLASSES)
    mine = labels < CLASSES
    truth = written_out(x_t, t, references, LinearPath())
    error = (bank.target(x_t, t, labels, LinearPath()) - truth).abs()[mine].max()
    a, s = (1 - t)[:, None], t[:, None]
    differences = x_t.flatten(1)[:, None] - a[:, None] * references.flatten(2)
    weights = (-differences.square().sum(-1) / (2 * s**2)).softmax(1)
    broadcast = (weights[:, :, None] * (differences / s[:, None] - references.flatten(2))).sum(1).reshape(x_t.shape)
    assert error < (broadcast - truth).abs()[mine].max()


def test_target_of_a_slice_is_the_slice_of_the_target():
    # Any number of processes gives the same batch, up to the order of summation in the products.
    bank = filled()
    x_t, t, labels, _ = batch(bank)
    whole = bank.target(x_t, t, labels, LinearPath())
    for part in (slice(0, 5), slice(5, 24)):
        assert torch.allclose(bank.target(x_t[part], t[part], labels[part], LinearPath()), whole[part], atol=1e-5)


def test_state_is_restored_exactly_and_goes_on_bit_for_bit(tmp_path):
    bank = filled(dtype=torch.bfloat16)
    safetensors.torch.save_file(bank.state_dict(), tmp_path / "bank.safetensors")
    other = ReferenceBank(CLASSES, CAPACITY, SHAPE, torch.bfloat16, null_capacity=10)
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "bank.safetensors"))
    g = torch.Generator().manual_seed(9)
    x, labels = torch.randn(17, *SHAPE, generator=g), torch.randint(0, CLASSES, (17,), generator=g)
    for each in (bank, other):
        each.insert(x, labels)
    for name, value in bank.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    x_t, t, labels, _ = batch(bank)
    assert torch.equal(bank.target(x_t, t, labels, LinearPath()), other.target(x_t, t, labels, LinearPath()))


def test_a_state_of_other_sizes_is_refused():
    with pytest.raises(UserError, match="rows is"):
        filled(null_capacity=9).load_state_dict(filled(null_capacity=10).state_dict())
    state = filled().state_dict()
    del state["inserted"]
    with pytest.raises(UserError, match="inserted is nothing"):
        filled().load_state_dict(state)


def test_an_unfilled_class_is_named_before_training():
    bank = ReferenceBank(3, 4, (1,), null_capacity=2)
    bank.insert(torch.zeros(2, 1), torch.tensor([0, 2]))
    with pytest.raises(UserError, match=r"1 classes have no reference \(first: 1\)"):
        bank.require_filled()
    bank.insert(torch.zeros(1, 1), torch.tensor([1]))
    bank.require_filled()


def test_labels_out_of_range_and_other_shapes_are_refused():
    bank = filled(null_capacity=0)
    rows = torch.zeros(2, *SHAPE)
    for labels in (torch.tensor([0, CLASSES]), torch.tensor([-1, 0])):
        with pytest.raises(ValueError, match=r"expected 0\.\.3"):
            bank.insert(rows, labels)
        with pytest.raises(ValueError, match=r"expected 0\.\.3"):
            bank.pick(labels, torch.rand(2))
        with pytest.raises(ValueError, match=r"expected 0\.\.3"):
            bank.target(rows, 0.5, labels, LinearPath())
    with pytest.raises(ValueError, match=r"expected 0\.\.3"):
        filled(null_capacity=5).insert(rows, torch.tensor([0, CLASSES]))
    with pytest.raises(ValueError, match="samples have shape"):
        bank.insert(torch.zeros(2, 3, 2), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="expected at least 1, 1 and 0"):
        ReferenceBank(3, 0, SHAPE)
    with pytest.raises(UserError, match="expected device cpu"):
        ReferenceBank(3, 4, SHAPE, device="meta", pinned=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_no_temporary_of_the_size_of_all_references_of_the_batch_is_built(dtype):
    size, capacity, dimension = 64, 64, 4096
    bank = ReferenceBank(20, capacity, (dimension,), dtype, null_capacity=capacity)
    bank.insert(torch.randn(20 * capacity, dimension), torch.arange(20).repeat(capacity))
    x_t, t, labels, _ = batch(bank, size)
    with LargestTensor() as largest:
        bank.target(x_t, t, labels, LinearPath())
    assert largest.numbers <= capacity * dimension < size * capacity * dimension / 60
    with LargestTensor() as largest:
        alpha, sigma, _, _ = LinearPath().coefficients(x_t, t)
        bank._mean_by_slot(x_t, alpha, sigma, labels)
    assert largest.numbers <= targets.CPU_BLOCK


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: none here, path not tested")
@pytest.mark.parametrize("pinned", [False, True])
def test_cuda_bank_gives_the_target_of_the_cpu_bank(pinned):
    bank = filled(dtype=torch.float16)
    other = ReferenceBank(
        CLASSES, CAPACITY, SHAPE, torch.float16, "cpu" if pinned else "cuda", null_capacity=10, pinned=pinned
    )
    other.load_state_dict(bank.state_dict())
    x_t, t, labels, _ = batch(bank)
    u = torch.rand(24, generator=torch.Generator().manual_seed(3))
    assert torch.equal(other.pick(labels.cuda(), u.cuda()).cpu(), bank.pick(labels, u))
    for own in (labels, labels.cuda()):
        result = other.target(x_t.cuda(), t.cuda(), own, LinearPath()).cpu()
        assert torch.allclose(result, bank.target(x_t, t, labels, LinearPath()), atol=1e-5)
    rows, classes = torch.randn(50, *SHAPE), torch.arange(50) % CLASSES
    for each, device in ((bank, "cpu"), (other, "cuda")):
        each.insert(rows.to(device), classes.to(device))
    assert torch.equal(other.state_dict()["rows"].cpu(), bank.state_dict()["rows"])
