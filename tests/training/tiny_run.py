"""A training run small enough to be killed dozens of times. Imports no torch: what waits for a run needs none."""

from typing import Any

from stablevelocity.study import Run


def tiny_run(name: str = "everything", **training: Any) -> Run:
    """StableVM below and above t_min, alignment and class token: all the state that a run can have."""
    settings = {
        "model": {"depth": 2, "width": 16, "heads": 2, "patch": 2, "encoder_depth": 1, "projector_width": 8},
        "seeds": [3],
        "steps": 24,
        "batch": 8,
        "lr": 1e-3,
        "checkpoint_every": 2,
        "log_every": 3,
        "threads": 1,
    }
    plain = name == "plain"
    return Run.model_validate(
        {
            "name": f"{name}-s3",
            "arm": name,
            "seed": 3,
            "objective": "cfm" if plain else "stablevm",
            "stablevm": None if plain else {"t_min": 0.3, "bank": {"capacity": 8}},
            "alignment": None if plain else {"schedule": "sigmoid", "xi": 0.7},
            "class_token": not plain,
            "training": settings | training,
        }
    )
