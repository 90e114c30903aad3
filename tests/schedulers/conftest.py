"""Every base solver in turn."""

import pytest
from scheduler_cases import BASES


@pytest.fixture(params=list(BASES))
def base(request):
    return BASES[request.param]
