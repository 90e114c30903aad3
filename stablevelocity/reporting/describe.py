"""Words for how a number was made: solver, steps, guidance, model, scale. No pandas, no torch."""

from collections.abc import Iterable

from stablevelocity.study import Study
from stablevelocity.study.settings import Sampler

SOLVERS = {"euler": "Euler", "heun": "Heun", "euler_maruyama": "Euler-Maruyama"}
METRICS = {
    "fid": "FID",
    "sfid": "sFID",
    "is": "IS",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "fid_infinity": "FID at infinite N",
    "fid_halves": "FID of halves",
}
BETTER_HIGH = ("is", "precision", "recall", "accuracy")


def sampler_text(sampler: Sampler) -> str:
    """One clause with all that a sampler's numbers depend on."""
    parts = [f"{SOLVERS[sampler.solver]}, {sampler.steps} steps"]
    if sampler.solver == "euler_maruyama":
        parts.append(diffusion_text(sampler))
    if sampler.low_regime != "none":
        name = "StableVS" if sampler.low_regime == "stablevs" else "control (base solver on the thinned grid)"
        parts.append(f"{name} with {sampler.low_steps} steps below t = {sampler.xi:g}")
        if sampler.noise_factor:
            parts.append(f"noise factor {sampler.noise_factor:g}")
    parts += [guidance_text(sampler), f"{sampler.labels} labels"]
    return ", ".join(parts)


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
    text = f"{guidance_text(main)}, {main.labels} labels"
    if "euler_maruyama" in solvers:
        text += f"; Euler-Maruyama: {diffusion_text(main)}"
    return text


def decoder_of(study: Study) -> tuple[str, str | None]:
    """The autoencoder that turns latents into images, and its pinned revision where it has one."""
    autoencoder = study.autoencoder
    if autoencoder.decoder:
        return autoencoder.decoder, autoencoder.decoder_revision
    return autoencoder.pretrained or "the autoencoder trained here", autoencoder.revision


def decoder_text(study: Study) -> str:
    """ "stabilityai/sd-vae-ft-ema at f04b2c4b98319346dad8c65879f680b1997b204a"."""
    return " at ".join(part for part in decoder_of(study) if part)


def seeds_text(seeds: Iterable[int]) -> str:
    numbers = sorted(set(int(seed) for seed in seeds))
    return ("seed " if len(numbers) == 1 else "seeds ") + ", ".join(str(seed) for seed in numbers)


def count_text(count: float, unit: str) -> str:
    """ "1 seed", "2 seeds"."""
    return f"{int(count):,} {unit}{'' if count == 1 else 's'}"


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
    """What a claim's verdict holds for."""
    if not study.arms:
        return pretrained_scope(study)
    return (
        f"{data_text(study)}; {model_text(study)}; {study.training.steps:,} steps of batch {study.training.batch}; "
        f"{count_text(len(study.training.seeds), 'seed')}; {study.sampling.images:,} samples per run; "
        f"{'Inception' if study.evaluation.extractor == 'inception' else 'digit-classifier'} features"
    )


def number(value: float, digits: int = 3) -> str:
    """A number for readers: `digits` significant ones, no exponent where it can be helped; a dash for NaN."""
    if value != value:
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    if size >= 10**digits:
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    if "e" in text:
        return f"{value:.0f}"
    # 0.30 and not 0.3 beside 0.31: keep the zeros that are significant.
    decimals = max(0, digits - 1 - _exponent(value))
    return f"{value:.{decimals}f}"


def _exponent(value: float) -> int:
    return int(f"{abs(value):e}".split("e")[1])


def interval(low: float, high: float, digits: int = 3) -> str:
    """ "low to high" with as many decimals as the larger one needs, or a dash when unknown."""
    if low != low or high != high:
        return "–"
    larger = max(abs(low), abs(high))
    if not 1e-4 <= larger < 1e6:
        return f"{number(low, digits)} to {number(high, digits)}"
    decimals = max(0, digits - 1 - _exponent(larger))
    return f"{low:.{decimals}f} to {high:.{decimals}f}"


def plus_minus(value: float, deviation: float, digits: int = 3) -> str:
    """ "value ± deviation", both with the value's decimals; the value alone when the deviation is unknown."""
    if deviation != deviation or not 1e-4 <= abs(value) < 1e6:
        return number(value, digits)
    return f"{number(value, digits)} ± {deviation:.{max(0, digits - 1 - _exponent(value))}f}"


def signed(value: float, digits: int = 3) -> str:
    text = number(value, digits)
    return text if value != value or value <= 0 else f"+{text}"
