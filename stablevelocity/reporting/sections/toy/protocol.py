"""Whether a study runs the toy experiment by the paper's protocol (docs/paper.md#toy)."""

from stablevelocity.reporting.describe import count_text
from stablevelocity.study.settings import Toy

PAPER = Toy()
"""The defaults are the paper's; `seeds` and `objectives` are counted, since it says nothing of their names."""


def departures(toy: Toy) -> list[str]:
    """Each setting that differs from the full protocol, with the value it has there; more seeds are no departure."""
    found = []
    for name in Toy.model_fields:
        ours, full = getattr(toy, name), getattr(PAPER, name)
        if name == "seeds":
            if len(ours) < len(full):
                found.append(f"{count_text(len(ours), 'seed')} (full: {len(full)})")
        elif name in ("objectives", "times"):
            if set(ours) != set(full):
                found.append(f"{name} {_shown(ours)} (full: {_shown(full)})")
        elif ours != full:
            found.append(f"{name.replace('_', ' ')} {_shown(ours)} (full: {_shown(full)})")
    return found


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
