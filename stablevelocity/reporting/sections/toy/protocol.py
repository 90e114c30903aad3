"""Whether a study runs the toy experiment by the paper's protocol (docs/paper.md#toy)."""

from stablevelocity.reporting.format import counted
from stablevelocity.study.experiment_settings import Toy

PAPER = Toy()
"""The defaults are the paper's; `seeds` and `objectives` are counted, since it says nothing of their names."""


def departures(toy: Toy) -> list[str]:
    """Each setting that differs from the full protocol, with the value it has there; more seeds are no departure."""
    different = []
    for name in Toy.model_fields:
        ours, full = getattr(toy, name), getattr(PAPER, name)
        if name == "seeds":
            if len(ours) < len(full):
                different.append(f"{counted(len(ours), 'seed')} (full: {len(full)})")
        elif (set(ours) != set(full)) if isinstance(full, list) else ours != full:
            different.append(f"{name.replace('_', ' ')} {_shown(ours)} (full: {_shown(full)})")
    return different


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
