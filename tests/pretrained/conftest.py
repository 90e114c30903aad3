"""One untrained pipeline folder per family: everything but the pictures' content is as with trained ones."""

import pytest
import torch

from stablevelocity.pretrained.families import FAMILIES
from stablevelocity.pretrained.generate import prepare
from stablevelocity.pretrained.tiny import TINY_FAMILIES


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made = {}
    for name, family in TINY_FAMILIES.items():
        torch.manual_seed(0)
        autoencoder = family.autoencoder()
        family.set_statistics(autoencoder, torch.linspace(-0.3, 0.5, 16), torch.linspace(0.5, 1.5, 16))
        made[name] = tmp_path_factory.mktemp(name)
        family.save(family.transformer(), autoencoder, made[name])
    return made


@pytest.fixture(params=list(FAMILIES))
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def load(folders):
    def loaded(family):
        return prepare(family.load(folders[family.name], torch.float32), "cpu", "none")

    return loaded
