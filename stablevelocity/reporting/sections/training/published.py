"""Which published value is about the same quantity as one of ours (docs/paper.md#imagenet).

Two null banks pass: that of K samples, which the authors' code has, and that of K samples of every class, which their
text describes and which is the default here. For comparisons (one arm against another) the published relative change is
given for every study, since the question is the same one at another scale.
"""

import math
from operator import attrgetter
from typing import Any, NamedTuple

from stablevelocity.reporting.describe import decoder_of
from stablevelocity.reporting.format import percent
from stablevelocity.reporting.results import Results
from stablevelocity.reporting.sections.training import FIGURE3B, TABLE3
from stablevelocity.study import Study
from stablevelocity.study.methods import kind
from stablevelocity.study.settings import Alignment, Training

ITERATIONS_PER_EPOCH = 5004
METRICS = ("fid", "sfid", "is", "precision", "recall")
OPTIMISER = ("batch", "lr", "betas", "weight_decay", "clip", "ema", "label_drop")
DECODER = "stabilityai/sd-vae-ft-ema"
STUDY = {
    "images.dataset": "folder",
    "images.size": 256,
    "autoencoder.pretrained": "stabilityai/sd-vae-ft-mse",
    "evaluation.extractor": "inception",
    "sampling.images": 50_000,
}
SAMPLER = {"solver": "euler_maruyama", "steps": 250, "diffusion": "t", "last_time": 0.04, "low_regime": "none"}
PLAIN = {"guidance": 1.0, "labels": "random"}
GUIDED = {"guidance": 1.8, "guidance_interval": (0.0, 0.7)}


def _apart(settings: Any, values: dict[str, Any]) -> list[str]:
    """ "images.size 16, not 256" for each of `values` that these settings do not have."""
    given = {key: attrgetter(key)(settings) for key in values}
    return [f"{key} {given[key]}, not {value}" for key, value in values.items() if given[key] != value]


def apart(study: Study, arm: str, sampler: str, guidance: dict[str, Any]) -> list[str]:
    """How a row is measured otherwise than the paper's: data, autoencoders, sampler, features, reference, number of
    samples and arm (docs/paper.md#imagenet). Empty when the two may stand beside each other.
    """
    decoder = decoder_of(study)[0]
    return [
        *_apart(study, STUDY),
        *([] if decoder == DECODER else [f"decoder {decoder}, not {DECODER}"]),
        *([] if study.evaluation.reference else ["reference: the train split, not ADM's batch"]),
        *_apart(study.sampler(sampler), {**SAMPLER, **guidance}),
        *_apart_arm(study, arm),
    ]


def _apart_arm(study: Study, name: str) -> list[str]:
    """As `apart`, of an arm. Tables 1 to 3 hold two kinds, trained by docs/paper.md#imagenet: a base method aligned on
    the whole path, and it with StableVM and the variance-aware weight; not one part alone, and no ablations: another
    xi, weight, bank, or time from which StableVM is used.
    """
    arm, what = study.arms[name], kind(study.arms[name])
    if arm.alignment is None or (what.objective, what.regime) not in (("stablevm", "low (soft)"), ("cfm", "whole")):
        return [f"the paper has no {what.method} in tables 1 to 3"]
    found = _apart(study.arm_training(name), {key: getattr(Training(), key) for key in OPTIMISER})
    bank = arm.stablevm.bank
    if what.stablevm:
        found += _apart(arm.stablevm, {"t_min": 0.5, "bank.capacity": 256})
        found += [] if bank.null_capacity in (None, 256) else _apart(bank, {"null_capacity": 256})
    alignment = {"projector": "conv", "spatial_norm": 0.6} if what.base == "iREPA" else {}
    if what.regime == "whole":  # its weight is 1: xi and k say nothing
        alignment |= {"schedule": "uniform", "xi": arm.alignment.xi, "k": arm.alignment.k}
    papers = Alignment.model_validate(alignment)
    found += _apart(arm.alignment, {key: getattr(papers, key) for key in Alignment.model_fields})
    return found + _apart(study, {"encoder.name": "dinov2-base"})


class Pair(NamedTuple):
    """Published FID of an arm and of what it is compared with, SiT-XL/2 at 100,000 iterations without guidance."""

    arm: float
    against: float
    where: str

    @property
    def relative(self) -> float:
        return self.arm / self.against - 1

    @property
    def text(self) -> str:
        change = percent(self.relative)
        return f"FID {self.arm:.2f} against {self.against:.2f} ({change}), SiT-XL/2, 100k iterations, {self.where}"


NONE, WHOLE = "none (SiT baseline)", "REPA on the whole path"
LOW, HIGH = "REPA in the low-variance regime", "REPA in the high-variance regime"
OF_FIGURE_3B = {
    "repa": (WHOLE, NONE),
    "repa-low": (LOW, WHOLE),
    "repa-low-gain": (LOW, NONE),
    "repa-high": (HIGH, WHOLE),
    "repa-high-gain": (HIGH, NONE),
}
OF_TABLE_3 = {f"{base.lower()}-stable": (f"{base} + StableVM + VA", base) for base in ("REPA", "iREPA", "REG")}


def pair(results: Results, comparison: str) -> Pair | None:
    """The paper's values for one of `methods.comparisons`, None when it gives none."""
    for file, key, metric, where, pairs in (
        (FIGURE3B, "alignment", "fid_50k", "figure 3b", OF_FIGURE_3B),
        (TABLE3, "method", "fid", "table 3", OF_TABLE_3),
    ):
        if comparison in pairs:
            values = results.published(file).set_index(key)[metric]
            arm, against = (float(values[name]) for name in pairs[comparison])
            return None if math.isnan(arm / against) else Pair(arm, against, where)
    return None
