"""Constraints between keys of a study: all that a later stage would raise, known before any job starts.

Types and ranges of single keys stand in `settings.py`. Each function here yields (key, problem) for each setting that
cannot work with the others; `CONSTRAINTS` is the table of them, and a study is valid when none yields anything.
What depends on the machine (files, folders, devices) is checked by `stablevelocity.cli.checks`.
"""

from collections.abc import Iterator

from stablevelocity.architectures import DIGITS_PATCH, DIGITS_VITS, ENCODERS
from stablevelocity.study.pretrained_settings import BASE_STEPS
from stablevelocity.study.reading import given
from stablevelocity.study.settings import Sampler, StableVM
from stablevelocity.study.study import Study

Problems = Iterator[tuple[str, str]]

DIGITS = 1797
IS_SPLITS = 10  # of the Inception score
MOST_PARAMETERS = 10**11
MOST_ENTRIES = 2**34  # of one array in memory


def image_counts(study: Study) -> tuple[int | None, int | None]:
    """(train, held-out) images, None where only the data set itself can tell."""
    if study.images.dataset == "digits":
        held_out = round(study.images.held_out * DIGITS)
        return DIGITS - held_out, held_out
    if study.images.dataset == "cifar10":
        return 50_000, 10_000
    return study.images.count, None


def aligned_arms(study: Study) -> list[str]:
    """Arms that need the encoder."""
    return [name for name, arm in study.arms.items() if arm.alignment or arm.class_token]


# --- names: what refers to another part of the study is there --------------------------------------------------------


def study_has_something_to_do(study: Study) -> Problems:
    if not study.arms and study.pretrained is None:
        yield "arms", "a study needs arms, or a section pretrained"


def names_differ_on_every_disk(study: Study) -> Problems:
    for key, names in (("arms", study.arms), ("sampling.samplers", study.sampling.samplers)):
        known: dict[str, str] = {}
        for name in names:
            if (other := known.setdefault(name.lower(), name)) != name:
                yield f"{key}.{name}", f"differs from {other!r} by case alone, which some disks do not keep apart"


def names_are_known(study: Study) -> Problems:
    sampling = study.sampling
    arms = [(f"sampling.arms.{key}", arm) for key, named in sampling.arms.items() for arm in named]
    arms += [("sampling.sweep.arms", arm) for arm in sampling.sweep.arms]
    if study.gradient_variance:
        arms += [("gradient_variance.arms", arm) for arm in study.gradient_variance.arms]
    samplers = [("sampling.arms", name) for name in sampling.arms]
    samplers += [("sampling.main", sampling.main)] if study.arms else []
    for kind, named, known in (("sampler", samplers, sampling.samplers), ("arm", arms, study.arms)):
        for key, name in named:
            if name not in known:
                yield key, f"unknown {kind} {given(name)}; there are {', '.join(known) or 'none'}"


def labels_differ(study: Study) -> Problems:
    first: dict[str, str] = {}
    for name, arm in study.arms.items():
        if first.setdefault(arm.label, name) != name:
            yield f"arms.{name}.label", f"{arm.label!r} is the label of arm {first[arm.label]} too"


# --- data ------------------------------------------------------------------------------------------------------------


def images_suffice(study: Study) -> Problems:
    """As many images as shards; enough of both splits for the metrics of real images; the count that is asked for."""
    if not study.arms:
        return
    images, (train, held_out) = study.images, image_counts(study)
    if train is not None:
        if images.count is not None and images.count != train:
            yield "images.count", f"{images.count} asked for, but {images.dataset} has {train} train images"
        if images.shards > train:
            yield "images.shards", f"{images.shards} shards, but only {train} train images"
    for split, count in (("train", train), ("held-out", held_out)):
        if count is not None and count < least_images(study):
            key = "images.held_out" if images.dataset == "digits" else "images.count"
            yield key, f"{count} {split} images, but the metrics need at least {needed(study)}"
    if held_out is not None and max(1, images.shards // 25) > held_out:
        yield "images.shards", f"{images.shards} shards, but only {held_out} held-out images"


def autoencoder_fits(study: Study) -> Problems:
    """Images are halved per level of an autoencoder trained here, then cut into patches."""
    autoencoder = study.autoencoder
    for key in ("revision", "decoder_revision"):
        owner = "pretrained" if key == "revision" else "decoder"
        if getattr(autoencoder, key) is not None and getattr(autoencoder, owner) is None:
            yield f"autoencoder.{key}", f"given without autoencoder.{owner}, whose revision it is"
    if autoencoder.pretrained is not None:
        return
    levels = len(autoencoder.widths)
    for arm in study.arms:
        patch = study.arm_training(arm).model.sizes.patch
        step = patch * 2 ** (levels - 1)
        if study.images.size % step:
            yield (
                "images.size",
                f"{study.images.size} is no multiple of {step}, what the autoencoder's {levels} levels and patch "
                f"{patch} of arm {arm} divide it by",
            )


def encoder_fits(study: Study) -> Problems:
    """Tokens of the encoder and of the networks match one to one."""
    encoder, size, arms = study.encoder, study.images.size, aligned_arms(study)
    if not arms:
        return
    if encoder.name in DIGITS_VITS:
        if encoder.path is not None:
            yield "encoder.path", f"{encoder.name} is trained here; leave it out"
        if size % DIGITS_PATCH:
            yield "images.size", f"{size} is no multiple of {DIGITS_PATCH}, the patch of {encoder.name}"
        elif encoder.grid != size // DIGITS_PATCH:
            sides = f"{size // DIGITS_PATCH} tokens a side at images.size {size}"
            yield "encoder.grid", f"{encoder.grid}, but {encoder.name} has {sides}"
    elif encoder.path is None:
        yield "encoder.path", f"{encoder.name} needs the file or folder of its weights"
    for arm in arms:
        depth, _, _, patch = study.arm_training(arm).model.sizes
        tokens = size // 2 ** (len(study.autoencoder.widths) - 1) // patch
        if study.autoencoder.pretrained is None and tokens != encoder.grid:
            yield "encoder.grid", f"{encoder.grid}, but the network of arm {arm} has {tokens} tokens a side"
        model = study.arm_training(arm).model
        reads = model.encoder_depth or (1 if model.name else 2)  # a named model's own stands within it
        if study.arms[arm].alignment and reads > depth:
            yield f"{_training(study, arm)}.model.encoder_depth", f"{reads}, but the network has {depth} blocks"
        if study.arms[arm].class_token and encoder.name not in DIGITS_VITS and not ENCODERS[encoder.name].class_token:
            yield f"arms.{arm}.class_token", f"{encoder.name} has no class token, which REG needs"


# --- training --------------------------------------------------------------------------------------------------------


def networks_can_be_built(study: Study) -> Problems:
    for arm in study.arms:
        depth, width, heads, _ = study.arm_training(arm).model.sizes
        key = f"{_training(study, arm)}.model"
        if width % heads or width % 4:
            yield f"{key}.width", f"{width} is no multiple of 4 and of heads ({heads})"
        if 18 * depth * width**2 > MOST_PARAMETERS:  # attention 4, MLP 8, modulation 6
            yield f"{key}.width", f"{width} at depth {depth} makes more than {MOST_PARAMETERS:.0e} parameters"


def arms_use_what_they_set(study: Study) -> Problems:
    for name, arm in study.arms.items():
        if arm.objective == "cfm" and arm.stablevm != StableVM():
            yield f"arms.{name}.stablevm", "given, but the objective is cfm, which does not use it"
        rows, batch = arm.stablevm.bank.capacity, study.arm_training(name).batch
        if arm.objective == "stf" and min(rows, arm.stablevm.bank.null_capacity or rows) < batch:
            # Else the image that is noised could have left its ring before the target is computed.
            yield f"arms.{name}.stablevm.bank", f"holds fewer rows of a class than a batch ({batch}), which stf needs"
        if arm.class_token and arm.alignment is None:
            yield f"arms.{name}.class_token", "REG aligns the patch tokens too; give alignment"


def gradients_can_be_measured(study: Study) -> Problems:
    if study.gradient_variance is None:
        return
    if study.gradient_variance.stablevm.is_auto:
        yield "gradient_variance.stablevm.t_min", "auto, but only an arm's follows the split point; give a number"
    bank = study.gradient_variance.stablevm.bank
    if bank.dtype != "float32":
        yield "gradient_variance.stablevm.bank.dtype", f"{bank.dtype}, but both targets need the same x_t; give float32"
    for name in [name for name in study.gradient_variance.arms if name in study.arms]:
        if study.arms[name].class_token:
            yield "gradient_variance.arms", f"{name} trains a class token, whose loss is not measured"
        batch = study.arm_training(name).batch
        if min(bank.capacity, bank.null_capacity or bank.capacity) < batch:
            yield "gradient_variance.stablevm.bank", f"holds fewer rows of a class than a batch of {name} ({batch})"


# --- sampling --------------------------------------------------------------------------------------------------------


def samplers_can_step(study: Study) -> Problems:
    for name, sampler in study.sampling.samplers.items():
        key = f"sampling.samplers.{name}"
        if sampler.solver == "euler_maruyama" and sampler.steps < 2:
            yield f"{key}.steps", f"{sampler.steps}, but euler_maruyama needs at least 2"
        if sampler.low_regime != "none" and sampler.low_steps > sampler.steps:
            yield f"{key}.low_steps", f"{sampler.low_steps} below xi, but only {sampler.steps} steps in all"
        for arm in [arm for arm in study.sampling.arms.get(name, study.arms) if arm in study.arms]:
            drop = study.arm_training(arm).label_drop
            if sampler.guidance > 1 and drop in (0, 1):
                missing = "trains no null class" if drop == 0 else "is told no class"
                yield f"{key}.guidance", f"{sampler.guidance:g}, but arm {arm} {missing} (label_drop {drop:g})"
            elif (sampler.labels == "none" and drop == 0) or (sampler.labels != "none" and drop == 1):
                what = "no null class" if drop == 0 else "the null class alone"
                yield f"{key}.labels", f"{sampler.labels}, but arm {arm} trains {what} (label_drop {drop:g})"


def sweep_can_step(study: Study) -> Problems:
    sweep = study.sampling.sweep
    if "euler_maruyama" in (*sweep.solvers, *sweep.thinned) and min(*sweep.steps, sweep.base_steps) < 2:
        key = "base_steps" if sweep.base_steps < 2 else "steps"
        yield f"sampling.sweep.{key}", "1 given, but euler_maruyama needs at least 2"
    labels = study.sampling.samplers.get(study.sampling.main, Sampler()).labels
    for arm in [arm for arm in sweep.arms or study.arms if arm in study.arms and labels != "none"]:
        if study.arm_training(arm).label_drop == 1:
            yield "sampling.sweep.arms", f"{arm} trains the null class alone, but labels of the sweep are {labels}"
    if sweep.thinned and max(sweep.low_steps, default=0) > sweep.base_steps:
        low_steps = max(sweep.low_steps)
        yield "sampling.sweep.low_steps", f"{low_steps} below xi, but only {sweep.base_steps} base steps in all"


def sets_can_be_shared(study: Study) -> Problems:
    sampling = study.sampling
    blocks = -(-sampling.images // sampling.block)
    if study.arms and sampling.shards > blocks:
        yield "sampling.shards", f"{sampling.shards} shards, but only {blocks} blocks of {sampling.block} images"


# --- evaluation ------------------------------------------------------------------------------------------------------


def least_images(study: Study) -> int:
    """Ten splits of the Inception score; the k-th other image of a set for precision and recall."""
    return max(IS_SPLITS, study.evaluation.neighbours + 1)


def needed(study: Study) -> str:
    return (
        f"{least_images(study)} ({IS_SPLITS} splits of the Inception score, more than evaluation.neighbours "
        f"{study.evaluation.neighbours})"
    )


def sets_can_be_evaluated(study: Study) -> Problems:
    if not study.arms:
        return
    sets = {"sampling.images": study.sampling.images, "sampling.sweep.images": study.sampling.sweep.images}
    for key, images in sets.items():
        if images < least_images(study):
            yield key, f"{images} images, but the metrics need at least {needed(study)}"


def extractor_fits(study: Study) -> Problems:
    evaluation, size = study.evaluation, study.images.size
    if evaluation.extractor == "inception":
        if study.arms and evaluation.weights is None:
            yield "evaluation.weights", "the extractor inception needs the file of its weights"
        return
    if evaluation.weights is not None:
        yield "evaluation.weights", "given, but the extractor is digits, which is trained here"
    if study.arms and size % 4:
        yield "images.size", f"{size} is no multiple of 4, which the digit classifier needs"


# --- experiments -----------------------------------------------------------------------------------------------------


def toy_has_references(study: Study) -> Problems:
    toy = study.toy
    if toy and toy.batch > toy.references:
        yield "toy.references", f"{toy.references}, but toy.batch is {toy.batch}: expected at least as many"


def variance_has_a_source(study: Study) -> Problems:
    variance = study.variance
    if study.arms and not variance.gmm_dimensions and not variance.data:
        yield "variance.data", "neither gmm_dimensions nor data names a distribution"
    samples = max(variance.gmm_samples, *variance.reference_counts)
    if samples * max(variance.gmm_dimensions, default=1) > MOST_ENTRIES:
        yield "variance.gmm_samples", f"{samples} samples of {max(variance.gmm_dimensions)} dimensions fit no memory"


# --- pretrained models -----------------------------------------------------------------------------------------------


def pretrained_can_run(study: Study) -> Problems:
    if study.pretrained is None:
        return
    for name, family in study.pretrained.families.items():
        key = f"pretrained.families.{name}"
        if study.pretrained.low_steps > BASE_STEPS[name][0]:
            steps = f"only {BASE_STEPS[name][0]} steps of {name} in all"
            yield "pretrained.low_steps", f"{study.pretrained.low_steps} below xi, but {steps}"
        if family.tiny is None and family.prompts is None:
            yield f"{key}.prompts", "the original model needs a benchmark's prompt file"
        if family.tiny is not None:
            for other in ("prompts", "folder"):
                if getattr(family, other) is not None:
                    yield f"{key}.{other}", "a tiny model has digit prompts and its own folder; leave it out"
            if family.offload != "none":
                yield f"{key}.offload", "a tiny model fits everywhere; leave it out"


def _training(study: Study, arm: str) -> str:
    """Where the network of an arm stands in the study file."""
    return f"arms.{arm}.training" if "model" in study.arms[arm].training else "training"


CONSTRAINTS = (
    study_has_something_to_do,
    names_differ_on_every_disk,
    names_are_known,
    labels_differ,
    images_suffice,
    autoencoder_fits,
    networks_can_be_built,
    arms_use_what_they_set,
    gradients_can_be_measured,
    encoder_fits,
    samplers_can_step,
    sweep_can_step,
    sets_can_be_shared,
    sets_can_be_evaluated,
    extractor_fits,
    toy_has_references,
    variance_has_a_source,
    pretrained_can_run,
)
