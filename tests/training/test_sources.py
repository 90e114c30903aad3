"""The image behind a pick, computed from the step, is the one that a ring of row numbers would have kept."""

import pytest
import torch

from stablevelocity import randomness
from stablevelocity.reference_bank import ReferenceBank
from stablevelocity.training.sources import Sources, filling_order

SEED, BATCH, SIZE, CLASSES = 5, 14, 60, 4


def labels_of_images() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.cat([torch.arange(CLASSES), torch.randint(CLASSES, (SIZE - CLASSES,), generator=g)])


@pytest.mark.parametrize(
    ("capacity", "null_capacity"), [(3, 12), (16, 64), (16, 7), (100, 400)], ids=["small", "usual", "null", "epochs"]
)
def test_the_image_of_every_pick_is_that_of_the_row_which_the_bank_picks(capacity: int, null_capacity: int) -> None:
    """Rings smaller than a batch and larger than several epochs, over seven epochs; some steps span two of them."""
    labels = labels_of_images()
    sources = Sources(SEED, BATCH, labels, CLASSES, capacity, null_capacity)
    # The bank itself, holding row numbers in place of latents: they are exact in float32.
    bank = ReferenceBank(CLASSES, capacity, (1,), null_capacity=null_capacity)
    filling = filling_order(SEED, labels, capacity)
    bank.insert(filling[:, None].float(), labels[filling])
    g = torch.Generator().manual_seed(1)
    for step in range(30):
        indices = randomness.data_indices(SEED, step, BATCH, SIZE)
        bank.insert(indices[:, None].float(), labels[indices])
        asked = torch.randint(CLASSES + 1, (200,), generator=g)
        u = torch.rand(200, generator=g)
        assert torch.equal(sources.images(step, asked, u), bank.pick(asked, u)[:, 0].long())


def test_steps_may_be_asked_in_any_order() -> None:
    """A resumed run starts anywhere, and readers run ahead of it."""
    labels, g = labels_of_images(), torch.Generator().manual_seed(2)
    asked, u = torch.randint(CLASSES + 1, (50,), generator=g), torch.rand(50, generator=g)
    sources = Sources(SEED, BATCH, labels, CLASSES, 16, 64)
    steps = [29, 3, 17, 0, 18, 4]
    found = {step: sources.images(step, asked, u) for step in steps}
    for step in sorted(steps):
        fresh = Sources(SEED, BATCH, labels, CLASSES, 16, 64)
        assert torch.equal(fresh.images(step, asked, u), found[step])


def test_the_filling_takes_the_first_images_of_each_class_in_the_seeded_order() -> None:
    labels = labels_of_images()
    order = torch.randperm(SIZE, generator=randomness.generator(SEED, 0, "bank order")).tolist()
    counts, expected = [0] * CLASSES, []
    for image in order:
        label = int(labels[image])
        counts[label] += 1
        if counts[label] <= 5:
            expected.append(image)
    assert filling_order(SEED, labels, 5).tolist() == expected
