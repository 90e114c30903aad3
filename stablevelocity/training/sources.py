"""Which image each reference of the bank came from.

Rings are filled in an order that the seed tells: first the filling, then the epochs, each read to its end. So the image
behind a pick is a function of the step, the label and the uniform number. No ring of row numbers is kept or saved, and
what the image is needed for can be read any number of steps ahead.
"""

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stablevelocity import randomness
from stablevelocity.reference_bank import slots


def filling_order(seed: int, labels: Int[Tensor, " images"], capacity: int) -> Int[Tensor, " chosen"]:
    """Images that fill the bank, in order: the first `capacity` of each class in a seeded order of all."""
    size = len(labels)
    order = torch.randperm(size, generator=randomness.generator(seed, 0, "bank order"))
    by_label = labels[order].argsort(stable=True)
    sorted_labels = labels[order][by_label]
    rank_in_class = torch.arange(size) - torch.searchsorted(sorted_labels, sorted_labels)
    return order[by_label[rank_in_class < capacity].sort().values]


class Sources:
    """The images behind the references of a bank that takes `filling_order` first and then every step's batch.

    `labels` are those of all images; capacities as for `ReferenceBank`.
    """

    def __init__(
        self, seed: int, batch: int, labels: Int[Tensor, " images"], num_classes: int, capacity: int, null_capacity: int
    ):
        self._batch, self._size = batch, len(labels)
        self._capacities = torch.tensor([capacity] * num_classes + [null_capacity])
        self._filling = _Sequence(filling_order(seed, labels, capacity), labels, num_classes)

        # References are younger than one or two epochs, unless rings are larger than the data set.
        @functools.lru_cache(maxsize=4)
        def epoch(number: int) -> _Sequence:
            return _Sequence(randomness.epoch_order(seed, number, len(labels)), labels, num_classes)

        self._epoch = epoch

    def images(self, step: int, labels: Int[Tensor, " b"], u: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Rows in the data set of what `ReferenceBank.pick(labels, u)` gives after the insertion of step `step`."""
        epoch, position = divmod((step + 1) * self._batch, self._size)
        capacities = self._capacities[labels]
        filled = self._filling.count(labels, len(self._filling))
        per_epoch = self._epoch(epoch).count(labels, self._size)
        inserted = filled + epoch * per_epoch + self._epoch(epoch).count(labels, position)
        slot = slots(u, torch.minimum(inserted, capacities))
        # The last of the insertions 0, 1, ... of this label that went into that slot.
        number = inserted - 1 - (inserted - 1 - slot) % capacities
        epochs = torch.where(number < filled, -1, (number - filled) // per_epoch)
        images = torch.empty_like(labels)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch
            if epoch < 0:
                images[here] = self._filling.image(labels[here], number[here])
            else:
                within = number[here] - filled[here] - epoch * per_epoch[here]
                images[here] = self._epoch(epoch).image(labels[here], within)
        return images


class _Sequence:
    """Images in the order of their insertion, found by label and number. All of them count for the null class."""

    def __init__(self, images: Int[Tensor, " n"], labels: Int[Tensor, " images"], num_classes: int):
        self._images = images
        position = torch.arange(len(images))
        # label n + position, ascending: each label's positions are a run in it.
        by_class = (labels[images] * len(images) + position).sort().values
        self._keys = torch.cat([by_class, num_classes * len(images) + position])

    def __len__(self) -> int:
        return len(self._images)

    def count(self, labels: Int[Tensor, " b"], stop: int) -> Int[Tensor, " b"]:
        """How many images of each label are among the first `stop`."""
        start = labels * len(self)
        return torch.searchsorted(self._keys, start + stop) - torch.searchsorted(self._keys, start)

    def image(self, labels: Int[Tensor, " b"], numbers: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The image that is number `numbers`, from 0, among those of its label."""
        first = torch.searchsorted(self._keys, labels * len(self))
        return self._images[self._keys[first + numbers] % len(self)]
