"""Choose a sampler's grid for one's own model by measurement: record long runs, recommend, verify.

`recommend(trajectory(velocity, noise, sigmas), calls=20)` in one's own code; `stablevelocity tune` for a pipeline.
"""

from stablevelocity.tuning.recommend import Recommendation, recommend
from stablevelocity.tuning.trajectory import Trajectory, record, trajectory

__all__ = ["Recommendation", "Trajectory", "recommend", "record", "trajectory"]
