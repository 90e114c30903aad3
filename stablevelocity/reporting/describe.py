"""How a number was made, in words: sampler, decoder, model, data, scale. No pandas, no torch."""

from collections.abc import Iterable

from stablevelocity.reporting.format import counted
from stablevelocity.reporting.names import SOLVERS
from stablevelocity.study import Study
from stablevelocity.study.experiment_settings import Toy
from stablevelocity.study.settings import Sampler


def sampler_text(sampler: Sampler) -> str:
    """All that a sampler's numbers depend on."""
    parts = [f"{SOLVERS[sampler.solver]}, {sampler.steps} steps"]
    if sampler.solver == "euler_maruyama":
        parts.append(diffusion_text(sampler))
    if sampler.shift != 1:
        parts.append(f"shift {sampler.shift:g}")
    if sampler.low_regime != "none":
        name = "StableVS" if sampler.low_regime == "stablevs" else "control (base solver on the thinned grid)"
        parts.append(f"{name} with {sampler.low_steps} steps below t = {sampler.xi:g}")
        if sampler.noise_factor:
            parts.append(f"noise factor {sampler.noise_factor:g}")
    return ", ".join([*parts, guidance_text(sampler), f"{sampler.labels} labels"])


def guidance_text(sampler: Sampler) -> str:
    """ "no guidance", or its scale and where it acts."""
    low, high = sampler.guidance_interval
    return f"guidance {sampler.guidance:g} for t in [{low:g}, {high:g}]" if sampler.guidance > 1 else "no guidance"


def diffusion_text(sampler: Sampler) -> str:
    """What Euler-Maruyama alone depends on."""
    return f"diffusion g = {sampler.diffusion}, last step from t = {sampler.last_time:g}"


def sweep_text(study: Study, solvers: Iterable[str]) -> str:
    """What samplers of a sweep share: all of it is the main sampler's, its coefficient where `solvers` have noise."""
    main = study.sampler(study.sampling.main)
    noise = f"; Euler-Maruyama: {diffusion_text(main)}" if "euler_maruyama" in solvers else ""
    shift = study.sampling.sweep.shift
    shifted = f"shift {shift:g}, " if shift != 1 else ""
    return f"{shifted}{guidance_text(main)}, {main.labels} labels{noise}"


def decoder_of(study: Study) -> tuple[str, str | None]:
    """The autoencoder that turns latents into images, and its pinned revision where it has one."""
    autoencoder = study.autoencoder
    if autoencoder.decoder:
        return autoencoder.decoder, autoencoder.decoder_revision
    return autoencoder.pretrained or "the autoencoder trained here", autoencoder.revision


def decoder_text(study: Study) -> str:
    """ "stabilityai/sd-vae-ft-ema at f04b2c4b98319346dad8c65879f680b1997b204a"."""
    return " at ".join(part for part in decoder_of(study) if part)


def model_text(study: Study) -> str:
    model = study.training.model
    return model.name or f"SiT of depth {model.depth}, width {model.width}, {model.heads} heads, patch {model.patch}"


def data_text(study: Study) -> str:
    names = {"digits": "scikit-learn's handwritten digits", "cifar10": "CIFAR-10", "folder": "the image folder"}
    return f"{names[study.images.dataset]} at {study.images.size}x{study.images.size}"


def paper_scale(study: Study) -> bool:
    """True for a study of the paper's own protocol (docs/paper.md#imagenet): its model sizes, length and metrics."""
    return (
        study.images.dataset == "folder"
        and study.images.size >= 256
        and study.training.model.name is not None
        and study.training.steps >= 100_000
        and study.evaluation.extractor == "inception"
        and study.sampling.images >= 50_000
    )


def pretrained_scope(study: Study) -> str:
    """What a verdict about pretrained models holds for."""
    tiny = study.pretrained.tiny if study.pretrained else []
    return f"tiny models of the real classes, trained on digit scenes: {', '.join(tiny)}" if tiny else "original models"


def scope_text(study: Study) -> str:
    """What a verdict of this study holds for."""
    if not study.arms:
        return pretrained_scope(study)
    return (
        f"{data_text(study)}; {model_text(study)}; {study.training.steps:,} steps of batch {study.training.batch}; "
        f"{counted(len(study.training.seeds), 'seed')}; {study.sampling.images:,} samples per run; "
        f"{'Inception' if study.evaluation.extractor == 'inception' else 'digit-classifier'} features"
    )


def departures(toy: Toy) -> list[str]:
    """Each setting of the toy that differs from the paper's protocol (docs/paper.md#toy), with the value there.

    The defaults are the paper's. Seeds and objectives are counted, since it says nothing of their names.
    """
    different, paper = [], Toy()
    for name in Toy.model_fields:
        ours, full = getattr(toy, name), getattr(paper, name)
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
