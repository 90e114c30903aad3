"""A run's settings become the network that they name."""

import pytest
import torch
from tiny_run import tiny_run

from stablevelocity.models.networks import build_network


@pytest.mark.parametrize(
    "model, aligned_after",
    [
        ({"name": "SiT-S/2"}, 4),
        ({"name": "SiT-L/2"}, 8),
        ({"name": "SiT-S/2", "encoder_depth": 6}, 6),
        ({"depth": 3, "width": 16, "heads": 2}, 2),
        ({"depth": 3, "width": 16, "heads": 2, "encoder_depth": 3}, 3),
    ],
)
def test_the_aligned_block_is_the_one_asked_for_and_by_default_the_papers(model, aligned_after) -> None:
    with torch.device("meta"):
        network = build_network(tiny_run(model=model), (4, 32, 32), 1000, 6)
    assert network.encoder_depth == aligned_after
