"""Which published value is about the same quantity as a cell of ours; NaN where none is.

A value is set beside a measured one only when model, optimiser, length, method, sampler, guidance, labels, decoder,
reference and number of samples agree. Two null banks pass: that of K samples, which the authors' code has, and that of
K samples of every class, which their text describes and which is the default here (docs/paper.md#stablevm). For
comparisons (one arm against another) the published relative change is given for every study, since the question is the
same one at another scale.
"""

import math
from typing import NamedTuple

from stablevelocity.reporting.describe import decoder_of
from stablevelocity.reporting.source import Frame, Source
from stablevelocity.study import Study
from stablevelocity.study.methods import kind
from stablevelocity.study.settings import Alignment, Training

ITERATIONS_PER_EPOCH = 5004
METRICS = ("fid", "sfid", "is", "precision", "recall")
OPTIMISER = ("batch", "lr", "betas", "weight_decay", "clip", "ema", "label_drop")


def same_protocol(source: Source, sampler: str) -> bool:
    """True when data, autoencoders, sampler, features, reference and number of samples are the paper's.

    The paper's are in docs/paper.md#imagenet. Guidance and labels differ by table and are the caller's to compare.
    """
    study = source.study
    chosen = study.sampling.samplers[sampler]
    return (
        study.images.dataset == "folder"
        and study.images.size == 256
        and study.autoencoder.pretrained == "stabilityai/sd-vae-ft-mse"
        and decoder_of(study)[0] == "stabilityai/sd-vae-ft-ema"
        and study.evaluation.extractor == "inception"
        and study.evaluation.reference is not None
        and study.sampling.images == 50_000
        and chosen.solver == "euler_maruyama"
        and chosen.steps == 250
        and chosen.diffusion == "t"
        and chosen.last_time == 0.04
        and chosen.low_regime == "none"
    )


def without_guidance(source: Source, arm: str, step: int, sampler: str) -> dict[str, float]:
    """The row of the paper's table 2, or of table 3 for iREPA and REG, that a measured row repeats."""
    study = source.study
    if not _of_tables_2_and_3(source, arm, sampler):
        return {}
    what = kind(study.arms[arm])
    if what.base in ("iREPA", "REG"):
        frame = source.published_csv("table3_alignment_variants.csv")
        method = f"{what.base} + StableVM + VA" if what.stablevm else what.base
    else:
        frame = source.published_csv("table2_model_scale_nocfg.csv")
        method = what.method
    model = study.arm_training(arm).model.name
    return _row(frame, (frame["model"] == model) & (frame["iterations"] == step), method)


def ablation_of_xi(source: Source, arm: str, base: str, step: int, sampler: str) -> dict[str, float]:
    """The FID in the paper's ablation of the training's xi, for an arm that differs from `base` in xi alone."""
    alignment, model = source.study.arms[arm].alignment, source.study.arm_training(arm).model.name
    if alignment is None or not _of_tables_2_and_3(source, base, sampler):
        return {}
    frame = source.published_csv("ablation_xi_training.csv")
    found = frame[(frame["model"] == model) & (frame["iterations"] == step) & (frame["xi"] == alignment.xi)]
    return {} if found.empty else {"published_fid": float(found.iloc[0]["fid"])}


def _of_tables_2_and_3(source: Source, arm: str, sampler: str) -> bool:
    chosen = source.study.sampling.samplers[sampler]
    unguided = chosen.guidance == 1 and chosen.labels == "random"
    return unguided and same_protocol(source, sampler) and _papers_settings(source.study, arm)


def with_guidance(source: Source, arm: str, step: int, sampler: str) -> dict[str, float]:
    """The row of the paper's table 1 that a measured row repeats."""
    study = source.study
    chosen = study.sampling.samplers[sampler]
    agrees = chosen.guidance == 1.8 and tuple(chosen.guidance_interval) == (0.0, 0.7)
    same_model = study.arm_training(arm).model.name == "SiT-XL/2"
    if not (same_protocol(source, sampler) and agrees and same_model and _papers_settings(study, arm)):
        return {}
    frame = source.published_csv("table1_imagenet256_cfg.csv")
    epochs = round(step / ITERATIONS_PER_EPOCH)
    same = (frame["epochs"] == epochs) & (frame["sampling_labels"] == chosen.labels)
    return _row(frame, same, kind(study.arms[arm]).method)


def _papers_settings(study: Study, name: str) -> bool:
    """True for the two kinds of arms that tables 1 to 3 hold, trained by docs/paper.md#imagenet: a base method aligned
    on the whole path, and it with StableVM and the variance-aware weight. False for one part alone and for ablations:
    another xi, weight, bank, or time from which StableVM is used.
    """
    arm, training, papers = study.arms[name], study.arm_training(name), Training()
    if any(getattr(training, key) != getattr(papers, key) for key in OPTIMISER) or arm.alignment is None:
        return False
    what = kind(arm)
    if (what.stablevm, what.regime) not in ((True, "low (soft)"), (False, "whole")):
        return False
    bank, t_min = arm.stablevm.bank, arm.stablevm.t_min
    if what.stablevm and not ((t_min, bank.capacity) == (0.5, 256) and bank.null_capacity in (None, 256)):
        return False
    alignment = {"projector": "conv", "spatial_norm": 0.6} if what.base == "iREPA" else {}
    if what.regime == "whole":  # its weight is 1: xi and k say nothing
        alignment |= {"schedule": "uniform", "xi": arm.alignment.xi, "k": arm.alignment.k}
    return arm.alignment == Alignment.model_validate(alignment) and study.encoder.name == "dinov2-base"


def _row(frame: Frame, same: Frame, method: str) -> dict[str, float]:
    found = frame[same & (frame["method"] == method)]
    if found.empty:
        return {}
    return {f"published_{metric}": float(found.iloc[0][metric]) for metric in METRICS}


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
        return f"FID {self.arm:.2f} against {self.against:.2f} ({100 * self.relative:+.1f} %), {self.where}"


def pair(source: Source, comparison: str) -> Pair | None:
    """The paper's values for one of `arms.comparisons`, None when it gives none."""
    regimes = source.published_csv("figure3b_alignment_regime.csv").set_index("alignment")["fid_50k"]
    variants = source.published_csv("table3_alignment_variants.csv").set_index("method")["fid"]
    plain, whole = "none (SiT baseline)", "REPA on the whole path"
    low, high = "REPA in the low-variance regime", "REPA in the high-variance regime"
    at = "SiT-XL/2, 100k iterations"
    from_regimes = {
        "repa": (whole, plain),
        "repa-low": (low, whole),
        "repa-low-gain": (low, plain),
        "repa-high": (high, whole),
        "repa-high-gain": (high, plain),
    }
    if comparison in from_regimes:
        arm, against = from_regimes[comparison]
        return _known(regimes, arm, against, f"{at}, figure 3b")
    base = {"repa-stable": "REPA", "irepa-stable": "iREPA", "reg-stable": "REG"}.get(comparison)
    return _known(variants, f"{base} + StableVM + VA", base, f"{at}, table 3") if base else None


def _known(values: Frame, arm: str, against: str, where: str) -> Pair | None:
    found = Pair(float(values[arm]), float(values[against]), where)
    return None if math.isnan(found.relative) else found
