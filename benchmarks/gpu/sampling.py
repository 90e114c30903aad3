"""Sampling with SiT-XL/2, decoding with the SD autoencoder and Inception features: random weights, published shapes."""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from benchmarks.gpu.rows import Report
from benchmarks.gpu.timing import Sections, median_seconds
from benchmarks.gpu.trainers import CONFIG
from stablevelocity.evaluation.extractors import BATCH, InceptionExtractor
from stablevelocity.models.autoencoders import decode_latents
from stablevelocity.models.sit import SiT, build_sit
from stablevelocity.sampling.generate import BlockSampler
from stablevelocity.sampling.run_sampler import sampler_times
from stablevelocity.study import load_study
from stablevelocity.study.settings import Sampler


def run(report: Report) -> None:
    with report.guarded("SiT-XL/2"):
        network(report)
    with report.guarded("autoencoder"):
        decoding(report)
    with report.guarded("Inception"):
        inception(report)


def flops(function, *inputs: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops()


def network(report: Report) -> None:
    device = report.device
    with torch.device(device):
        if report.dry:
            model = SiT(input_size=8, depth=2, width=32, heads=4, patch_size=2, num_classes=10)
        else:
            model = build_sit("SiT-XL/2", input_size=32)
    model = model.eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "adaLN" in name or name.startswith("final_layer"):
            nn.init.normal_(parameter, std=0.02)
    study = load_study(CONFIG / "imagenet256.yaml")
    sampler = study.sampling.samplers["sde-guided"]
    blocks = BlockSampler(
        model=model,
        autoencoder=None,  # type: ignore[arg-type]  # latents only
        scale=0.18215,
        sampler=sampler.model_copy(update={"steps": 4 if report.dry else 20}),
        block=4 if report.dry else study.sampling.block,
        precision="fp32" if report.dry else study.sampling.precision,
        device=device.type,
    )
    work = flops(
        model.velocity,
        torch.zeros(1, model.in_channels, model.input_size, model.input_size, device=device),
        torch.zeros(1, device=device),
        torch.zeros(1, dtype=torch.long, device=device),
    )
    for size in (blocks.block, 4 * blocks.block):
        with report.guarded(f"blocks of {size}"):
            one_size(report, replace(blocks, block=size), sampler, work)
    if report.dry:
        return
    model.compile_blocks()
    with report.guarded("compiled"):
        one_size(report, blocks, sampler, work, ", compiled")


def network_rows(sampler: Sampler) -> int:
    """Rows of the network per image: two where guidance is on."""
    low, high = sampler.guidance_interval
    return sum(2 if low <= t <= high else 1 for t in sampler_times(sampler)[:-1].tolist())


def one_size(report: Report, blocks: BlockSampler, whole: Sampler, work: int, label: str = "") -> None:
    device, name = report.device, f"sampling, blocks of {blocks.block}{label}"
    replace(blocks, sampler=blocks.sampler.model_copy(update={"steps": 2})).latents(0)
    seconds = median_seconds(lambda: blocks.latents(0), device, rounds=3, warm_up=0, limit=8)
    rows, all_rows = network_rows(blocks.sampler), network_rows(whole)
    note = f"{blocks.precision}; {blocks.sampler.steps} steps timed, {whole.steps} by network rows ({rows}, {all_rows})"
    rate = blocks.block / seconds * rows / all_rows
    ceiling = report.rate("matrix product bf16") * 1e12 / work / all_rows
    report.measured(
        f"{name}: images of {whole.steps} guided steps",
        rate,
        "1/s",
        floor=ceiling,
        note=f"{note}; floor: by the rate of products",
    )
    clock = Sections(device)
    clock.watch(blocks.model, "velocity", "network")
    start = clock.mark()
    blocks.latents(0)
    end = clock.mark()
    share = clock.seconds()["network"] / clock.elapsed(start, end)
    clock.unwatch()
    report.measured(
        f"{name}: the network's share",
        share,
        "",
        note="on the device's clock; the rest: solver in float64, guidance, draws",
    )


def decoding(report: Report) -> None:
    device = report.device
    widths = (8, 16) if report.dry else (128, 256, 512, 512)
    with torch.device(device):
        model = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            block_out_channels=widths,
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=8 if report.dry else 32,
            sample_size=32 if report.dry else 256,
        )
    model = model.eval().requires_grad_(False)
    side, batch = (4, 2) if report.dry else (32, 64)
    latents = torch.randn(batch, 4, side, side, device=device)
    with torch.no_grad():
        work = batch * flops(lambda x: model.decode(x), latents[:1])
    cases = [("float32, as the project does", torch.float32, "tf32"), ("bfloat16", torch.bfloat16, "bf16")]
    for name, dtype, ceiling in cases:
        with report.guarded(f"decoding, {name}"):
            own = model.to(dtype=dtype)
            seconds = median_seconds(lambda own=own: decode_latents(own, latents, 0.18215), device, rounds=3, warm_up=1)
            best = batch * report.rate(f"matrix product {ceiling}") * 1e12 / work
            report.measured(
                f"decoding, {name}: images",
                batch / seconds,
                "1/s",
                floor=best,
                note=f"batch {batch}; floor: by the {ceiling} rate",
            )
            if device.type == "cuda":
                report.measured(f"decoding, {name}: peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


class RandomInception(FeatureExtractorInceptionV3):
    """torch-fidelity's network without the published weights."""

    def load_state_dict(self, *arguments, **named):  # type: ignore[override]
        return None


def inception(report: Report) -> None:
    device = report.device
    with tempfile.TemporaryDirectory() as folder:
        nothing = Path(folder) / "nothing.pth"
        torch.save({}, nothing)
        network = RandomInception(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(nothing)
        )
    extractor = InceptionExtractor(network.to(device), "random weights")
    batch, side = (1, 32) if report.dry else (BATCH, 256)
    images = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
    work = flops(extractor, images[:1]) * batch
    seconds = median_seconds(lambda: extractor(images), device, rounds=5, warm_up=2)
    best = batch * report.rate("matrix product tf32") * 1e12 / work
    note = f"batches of {batch}, from and to the host; random weights; floor: by the tf32 rate"
    report.measured("Inception features: images", batch / seconds, "1/s", floor=best, note=note)
    report.measured("Inception features: 50,000 images", 50_000 * seconds / batch, "s")
