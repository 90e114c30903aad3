"""StableVS for diffusers pipelines: three drop-in schedulers and the control arm of each.

`pipe.scheduler = StableVSFlowMatchEulerScheduler.from_config(pipe.scheduler.config)` is all a user writes.
"""

from stablevelocity.schedulers.dpmsolver_multistep import (
    StableVSDPMSolverMultistepScheduler,
    ThinnedDPMSolverMultistepScheduler,
)
from stablevelocity.schedulers.flow_match_euler import (
    StableVSFlowMatchEulerScheduler,
    ThinnedFlowMatchEulerScheduler,
)
from stablevelocity.schedulers.unipc_multistep import (
    StableVSUniPCMultistepScheduler,
    ThinnedUniPCMultistepScheduler,
)

__all__ = [
    "StableVSDPMSolverMultistepScheduler",
    "StableVSFlowMatchEulerScheduler",
    "StableVSUniPCMultistepScheduler",
    "ThinnedDPMSolverMultistepScheduler",
    "ThinnedFlowMatchEulerScheduler",
    "ThinnedUniPCMultistepScheduler",
]
