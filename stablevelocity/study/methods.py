"""The arms of a study as the paper's methods: SiT, REPA, iREPA, REG; CFM or StableVM; where the alignment acts.

Read from an arm's settings, never from its name: two studies that name their arms differently make the same tables.
"""

from dataclasses import dataclass
from typing import Any

from stablevelocity.study import Study
from stablevelocity.study.settings import Arm, BySplitPoint, Model

SOFT, HARD, HIGH = "low (soft)", "low (hard cut)", "high"  # regimes of the alignment
TARGETS = {"cfm": "CFM", "stf": "STF", "stablevm": "StableVM"}
ALIGNED = {"whole": "{}", SOFT: "VA-{}", HARD: "{}, low regime only", HIGH: "{}, high regime only"}


@dataclass(frozen=True)
class Kind:
    """A method: `base` is SiT (no alignment), REPA, iREPA or REG; `objective` its target; `regime` where the alignment
    acts: "none", "whole", "low (soft)" (VA-REPA's weight), "low (hard cut)" or "high" (docs/paper.md#va-repa).
    """

    base: str
    objective: str
    regime: str

    @property
    def method(self) -> str:
        """As in the paper's tables, e.g. "REPA" or "StableVM + VA-REPA"."""
        if self.base == "SiT":
            return TARGETS[self.objective] if self.objective != "cfm" else "SiT (CFM)"
        aligned = ALIGNED[self.regime].format(self.base)
        return aligned if self.objective == "cfm" else f"{TARGETS[self.objective]} + {aligned}"

    @property
    def stablevm(self) -> bool:
        return self.objective == "stablevm"


def kind(arm: Arm) -> Kind:
    """The method of an arm."""
    alignment = arm.alignment
    if alignment is None:
        return Kind("SiT", arm.objective, "none")
    base = "REPA"
    if arm.class_token:
        base = "REG"
    elif alignment.projector == "conv" or alignment.spatial_norm is not None:
        base = "iREPA"
    regime = {"uniform": "whole", "hard": HARD, "hard_high": HIGH}.get(alignment.schedule, SOFT)
    return Kind(base, arm.objective, regime)


def find(
    study: Study, base: str, *, objective: str = "cfm", regimes: tuple[str, ...] = ("none",), labels: bool = True
) -> str | None:
    """The first arm of a method with the study's own network; of several `regimes` the first that there is.

    Without `labels`, of the arms that are trained without any. None when the study has no such arm.
    """
    for regime in regimes:
        for name, arm in study.arms.items():
            own = model_of(study, name) == study.training.model and has_labels(study, name) == labels
            if own and kind(arm) == Kind(base, objective, regime):
                return name
    return None


def model_of(study: Study, arm: str) -> Model:
    """The network of an arm. Arms of different networks are never compared with each other."""
    return study.arm_training(arm).model


def has_labels(study: Study, arm: str) -> bool:
    """Whether the network of an arm is ever told a class."""
    return study.arm_training(arm).label_drop < 1


def same_model(study: Study, arm: str) -> list[str]:
    """The arms, itself included, that train the same network as `arm`, with labels or without as it."""
    same = model_of(study, arm), has_labels(study, arm)
    return [name for name in study.arms if (model_of(study, name), has_labels(study, name)) == same]


def principal(study: Study) -> list[str]:
    """Arms that the paper's comparisons need; all of them in a study without any comparison."""
    compared = {arm for _, *pair in comparisons(study) for arm in pair}
    return [arm for arm in study.arms if arm in compared] or list(study.arms)


def baseline(study: Study) -> str | None:
    """The arm of SiT with CFM: no alignment, no StableVM."""
    return find(study, "SiT")


def comparisons(study: Study) -> list[tuple[str, str, str]]:
    """(name, arm, against) of the comparisons that the paper makes and this study has arms for.

    Of each base method: the method itself, its alignment in the low and in the high regime only, and StableVM with the
    variance-aware alignment; against SiT with CFM ("-gain") and against the method as published. Besides, StableVM
    with STF, and with CFM where neither is told the class.
    """
    plain, stablevm = baseline(study), find(study, "SiT", objective="stablevm")
    unlabelled = find(study, "SiT", objective="stablevm", labels=False), find(study, "SiT", labels=False)
    candidates = [
        ("stablevm", stablevm, plain),
        ("stablevm-stf", stablevm, find(study, "SiT", objective="stf")),
        ("stablevm-unlabelled", *unlabelled),
    ]
    for base in ("REPA", "iREPA", "REG"):
        whole = find(study, base, regimes=("whole",))
        candidates.append((base.lower(), whole, plain))
        for suffix, arm in (
            ("low", find(study, base, regimes=(HARD, SOFT))),
            ("high", find(study, base, regimes=(HIGH,))),
            ("stable", find(study, base, objective="stablevm", regimes=(SOFT, HARD))),
        ):
            candidates += [(f"{base.lower()}-{suffix}", arm, whole), (f"{base.lower()}-{suffix}-gain", arm, plain)]
    return [(name, arm, against) for name, arm, against in candidates if arm and against]


def target_text(arm: Arm) -> str:
    """The velocity target of an arm with all that it depends on."""
    if arm.objective == "cfm":
        return "CFM"
    bank = arm.stablevm.bank
    null = f"{bank.null_capacity:,} rows" if bank.null_capacity else f"{bank.capacity:,} rows per class"
    target = TARGETS[arm.objective]
    return f"{target} for t >= {_split_text(arm.stablevm)}, bank of {bank.capacity:,} per class, null bank of {null}"


def alignment_text(arm: Arm) -> str:
    """The alignment of an arm with all that it depends on; a dash without one."""
    alignment = arm.alignment
    if alignment is None:
        return "–"
    text = f"{alignment.schedule} weight"
    if alignment.schedule != "uniform":
        text += f", xi = {_split_text(alignment)}"
    if alignment.schedule == "sigmoid":
        text += f", k = {alignment.k:g}"
    text += f", lambda = {alignment.coefficient:g}, {alignment.projector} projector"
    if alignment.spatial_norm is not None:
        text += f", gamma = {alignment.spatial_norm:g}"
    return text + (", class token" if arm.class_token else "")


def _split_text(section: BySplitPoint) -> str:
    """The number that may come from the variance curve, then with its interval."""
    value, between = getattr(section, section.number), section.interval
    text = value if isinstance(value, str) else f"{value:g}"  # "auto" until the curve is there
    return f"{text} (split point of the latents, {between[0]:g} to {between[1]:g})" if between else text


# Settings that the paper varies one at a time, in the order of its tables.
ABLATED = (
    "alignment.xi",
    "alignment.schedule",
    "stablevm.bank.capacity",
    "stablevm.bank.null_capacity",
    "stablevm.t_min",
)


def ablations(study: Study) -> list[tuple[str, str, str]]:
    """(setting, arm, base): `arm` differs from a StableVM arm, `base`, in nothing but one of `ABLATED`.

    `base` is the study's first StableVM arm without alignment, or with the soft variance-aware weight, of each method.
    """
    ablated = []
    for method in ("SiT", "REPA", "iREPA", "REG"):
        base = find(study, method, objective="stablevm", regimes=("none" if method == "SiT" else SOFT,))
        for arm in study.arms if base else ():
            ours, theirs = flat_settings(study, arm), flat_settings(study, str(base))
            apart = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
            if len(apart) == 1 and apart[0] in ABLATED:
                ablated.append((apart[0], arm, str(base)))
    return sorted(ablated, key=lambda one: ABLATED.index(one[0]))


def flat_settings(study: Study, arm: str) -> dict[str, Any]:
    """By dotted key, all that the networks of an arm depend on at a given step and seed."""
    settings = study.arms[arm].model_dump(exclude={"label"})
    for part, section in study.arms[arm].by_split_point().items():
        if section.is_auto:  # told from the same number given, also once the curve has given it
            value = getattr(section, section.number)
            settings[part][section.number] = value if value == "auto" else f"{value:g} (auto)"
    settings["training"] = study.arm_training(arm).model_dump(exclude={"seeds", "steps", "milestones"})
    return _flat(settings)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
