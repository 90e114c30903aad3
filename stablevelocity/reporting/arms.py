"""What an arm of a study is in the words of the paper, read from its settings and not from its name."""

from dataclasses import dataclass

from stablevelocity.settings import Arm, Model
from stablevelocity.study import Study

VARIANCE_AWARE = ("hard", "sigmoid", "cosine", "snr")


@dataclass(frozen=True)
class Kind:
    """`base`: SiT (no alignment), REPA, iREPA or REG; `regime`: where the alignment acts."""

    base: str
    stablevm: bool
    regime: str
    """none, whole, low (hard cut), low (soft) or high."""

    @property
    def method(self) -> str:
        """As in the paper's tables, e.g. "REPA" or "StableVM + VA-REPA"."""
        if self.base == "SiT":
            return "StableVM" if self.stablevm else "SiT (CFM)"
        aligned = {
            "whole": self.base,
            "low (soft)": f"VA-{self.base}",
            "low (hard cut)": f"{self.base}, low regime only",
            "high": f"{self.base}, high regime only",
        }[self.regime]
        return f"StableVM + {aligned}" if self.stablevm else aligned


def kind(arm: Arm) -> Kind:
    """Classify an arm by its objective and alignment (PAPER: section 4)."""
    stablevm = arm.objective == "stablevm"
    if arm.alignment is None:
        return Kind("SiT", stablevm, "none")
    base = "REPA"
    if arm.class_token:
        base = "REG"
    elif arm.alignment.projector == "conv" or arm.alignment.spatial_norm is not None:
        base = "iREPA"
    regime = {"uniform": "whole", "hard": "low (hard cut)", "hard_high": "high"}.get(
        arm.alignment.schedule, "low (soft)"
    )
    return Kind(base, stablevm, regime)


def find(study: Study, base: str, *, stablevm: bool, regimes: tuple[str, ...]) -> str | None:
    """The first arm of that kind with the study's own network, None when there is none; regimes by preference."""
    for regime in regimes:
        for name, arm in study.arms.items():
            if kind(arm) == Kind(base, stablevm, regime) and model_of(study, name) == study.training.model:
                return name
    return None


def model_of(study: Study, arm: str) -> Model:
    """The network of an arm. Arms of different networks are never compared with each other."""
    return study.arm_training(arm).model


def same_model(study: Study, arm: str) -> list[str]:
    """The arms, itself included, that train the same network as `arm`."""
    return [name for name in study.arms if model_of(study, name) == model_of(study, arm)]


def principal(study: Study) -> list[str]:
    """Arms that the paper's comparisons need; all of them in a study without any comparison."""
    compared = {arm for _, *pair in comparisons(study) for arm in pair}
    return [arm for arm in study.arms if arm in compared] or list(study.arms)


def baseline(study: Study) -> str | None:
    """CFM without alignment."""
    return find(study, "SiT", stablevm=False, regimes=("none",))


def comparisons(study: Study) -> list[tuple[str, str, str]]:
    """(name, arm, against) of the comparisons that the paper makes and this study has arms for."""
    plain = baseline(study)
    stable = find(study, "SiT", stablevm=True, regimes=("none",))
    soft = ("low (soft)", "low (hard cut)")
    found = [("stablevm", stable, plain)]
    for base in ("REPA", "iREPA", "REG"):
        whole = find(study, base, stablevm=False, regimes=("whole",))
        low = find(study, base, stablevm=False, regimes=("low (hard cut)", "low (soft)"))
        high = find(study, base, stablevm=False, regimes=("high",))
        both = find(study, base, stablevm=True, regimes=soft)
        name = base.lower()
        found += [
            (name, whole, plain),
            (f"{name}-low", low, whole),
            (f"{name}-low-gain", low, plain),
            (f"{name}-high", high, whole),
            (f"{name}-high-gain", high, plain),
            (f"{name}-stable", both, whole),
            (f"{name}-stable-gain", both, plain),
        ]
    return [(name, arm, against) for name, arm, against in found if arm and against]
