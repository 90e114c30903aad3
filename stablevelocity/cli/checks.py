"""What a study names on this machine: files, folders, data sets, devices. Each problem is one line that names the key.

Apart from reading a study, so that one can be planned on a machine without its data. Done by `stablevelocity check`,
and by the workflow before its first job.
"""

from collections import Counter
from pathlib import Path

from stablevelocity.errors import UserError
from stablevelocity.files import read_json
from stablevelocity.study import Study
from stablevelocity.study.constraints import aligned_arms, image_counts, least_images, needed
from stablevelocity.study.pretrained_settings import VIDEO
from stablevelocity.study.reading import shortened


def check_machine(study: Study, *, list_images: bool = True) -> None:
    """Raise UserError for the first thing that the study names and that is not there, or not what it is taken for.

    `list_images`: go through the names of a folder data set too, a few seconds for ImageNet.
    """
    _check_labels(study)
    if study.arms:
        _check_evaluation(study)
        _check_autoencoders(study)
        _check_encoder(study)
        _check_images(study, list_images)
    _check_pretrained(study)


def _check_labels(study: Study) -> None:
    """What stands between two dollars in a label is drawn as mathematics."""
    labels = {name: arm.label for name, arm in study.arms.items() if arm.label.count("$") > 1}
    if not labels:
        return
    from matplotlib.cbook import is_math_text
    from matplotlib.mathtext import MathTextParser

    for name, label in labels.items():
        try:
            if is_math_text(label):
                MathTextParser("path").parse(label)
        except ValueError as error:
            why = str(error).splitlines()[-1].strip()
            raise UserError(f"arms.{name}.label: {label!r} cannot be drawn as mathematics ({shortened(why)})") from None


def _there(key: str, path: Path | None, *, folder: bool | None = None) -> None:
    """`folder`: whether it must be a folder or a file; None: either."""
    if path is None:
        return
    if not path.exists():
        raise UserError(f"{key}: there is no {str(path)!r}")
    if folder is not None and path.is_dir() != folder:
        raise UserError(f"{key}: {str(path)!r} is {'no' if folder else 'a'} folder")


def _check_evaluation(study: Study) -> None:
    evaluation = study.evaluation
    _there("evaluation.weights", evaluation.weights, folder=False)
    _there("evaluation.reference", reference := evaluation.reference)
    if reference is not None and not reference.is_dir() and reference.suffix not in (".npz", ".json"):
        raise UserError(f"evaluation.reference: {str(reference)!r} is no .npz, no manifest of shards and no folder")


def _check_autoencoders(study: Study) -> None:
    autoencoder = study.autoencoder
    decoder = ("decoder", autoencoder.decoder, autoencoder.decoder_revision)
    for key, name, revision in (("pretrained", autoencoder.pretrained, autoencoder.revision), decoder):
        if name is None:
            continue
        config = _autoencoder_config(f"autoencoder.{key}", name, revision)
        halvings = len(config.get("block_out_channels", [0] * 4)) - 1
        for arm in study.arms:
            step = 2**halvings * study.arm_training(arm).model.sizes.patch
            tokens, rest = divmod(study.images.size, step)
            if rest:
                raise UserError(
                    f"images.size: {study.images.size} is no multiple of {step}, what autoencoder.{key} and the patch "
                    f"of arm {arm} divide it by"
                )
            if arm in aligned_arms(study) and tokens != study.encoder.grid:
                raise UserError(
                    f"encoder.grid: {study.encoder.grid}, but the network of arm {arm} has {tokens} tokens a side"
                )


def _autoencoder_config(key: str, name: str, revision: str | None) -> dict:
    """config.json of an autoencoder in a folder or in the hub's cache."""
    if Path(name).is_dir():
        for file in ("config.json", "diffusion_pytorch_model.safetensors"):
            _there(key, Path(name) / file, folder=False)
        return _json(key, Path(name) / "config.json")
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(cached, str):
        raise UserError(
            f"{key}: {name!r} at {revision} is not on this machine; "
            f"fetch it with `stablevelocity download {name} --revision {revision}`"
        )
    return _json(key, Path(cached))


def _json(key: str, path: Path) -> dict:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{key}: {path} holds no mapping")
    return content


def _check_encoder(study: Study) -> None:
    path = study.encoder.path
    _there("encoder.path", path)
    if path is None or not aligned_arms(study):
        return
    if path.is_dir():
        _there("encoder.path", path / "model.safetensors", folder=False)
    elif path.suffix != ".safetensors":
        raise UserError(f"encoder.path: {str(path)!r} is not safetensors; run `stablevelocity convert-encoder` on it")


def _check_images(study: Study, list_images: bool) -> None:
    images, (train, _) = study.images, image_counts(study)
    _there("images.path", images.path, folder=True)
    if images.dataset == "digits" and (train or 0) > 400:
        return  # among so many each class has some
    from stablevelocity.data.class_folders import check_classes_have_images
    from stablevelocity.data.stages.images import source_of

    try:
        source = source_of(images)
        if images.dataset == "cifar10" or not list_images:
            return
        listed, held_out = source.index("train"), source.index("heldout")
        counts = Counter(label for _, label in listed)
        per_class = [counts[label] for label in range(len(source.class_names))]
        check_classes_have_images(source.class_names, per_class, images.path or images.dataset)
    except UserError as error:
        key = "held_out" if images.dataset == "digits" else "path"
        raise UserError(f"images.{key}: {str(error).removeprefix('images: ')}") from None
    if images.shards > len(listed):
        raise UserError(f"images.shards: {images.shards} shards, but only {len(listed)} train images")
    if images.count is not None and images.count > len(listed):
        raise UserError(f"images.count: {images.count} asked for, but {images.path} has {len(listed)} train images")
    if len(held_out) < max(least_images(study), images.shards // 25):
        raise UserError(
            f"images.path: {images.path} has {len(held_out)} images in val/, but the metrics need {needed(study)}, "
            f"and one is needed for each of {max(1, images.shards // 25)} shards"
        )


def _check_pretrained(study: Study) -> None:
    if study.pretrained is None:
        return
    from stablevelocity.pretrained.prompts import digit_prompts, digit_video_prompts, read_benchmark

    for name, family in study.pretrained.families.items():
        key = f"pretrained.families.{name}"
        _there(f"{key}.prompts", family.prompts, folder=False)
        _there(f"{key}.folder", family.folder, folder=True)
        if family.folder is not None:
            _there(f"{key}.folder", family.folder / "model_index.json", folder=False)
        if family.prompts is not None:
            prompts = len(read_benchmark(name, family.prompts, family.category))
        elif family.shards > 1:
            make = digit_video_prompts if name in VIDEO else digit_prompts
            prompts = len(make(family.prompts_per_task, 0))
        else:
            prompts = 1
        if family.shards > prompts:
            raise UserError(f"{key}.shards: {family.shards} shards, but only {prompts} prompts")


def fp16_without_accelerator(study: Study) -> str | None:
    """What is wrong, in one line, with training in fp16 on this machine; None where it has an accelerator."""
    arms = [arm for arm in study.arms if study.arm_training(arm).precision == "fp16"]
    if not arms:
        return None
    import torch

    if torch.cuda.is_available():
        return None
    return f"training.precision: fp16 of arm {arms[0]} needs an accelerator, and this machine has none"
