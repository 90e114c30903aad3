"""What the device gives at most, measured: rates of matrix products, of a device copy, and of copies from the host."""

import platform
import shutil
import subprocess
from importlib import metadata

import torch

from benchmarks.gpu.rows import Report
from benchmarks.gpu.timing import median_seconds

READINGS = "clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu,driver_version"


def run(report: Report) -> None:
    device, size = report.device, 64 if report.dry else 8192
    with report.guarded("machine"):
        report.measured("machine", 1, "", note=machine(device))
    generator = torch.Generator(device).manual_seed(0)
    for dtype, tf32, name in (
        (torch.bfloat16, False, "bf16"),
        (torch.float16, False, "fp16"),
        (torch.float32, True, "tf32"),
        (torch.float32, False, "fp32"),
        (torch.float64, False, "fp64"),
    ):
        with report.guarded(f"matrix product {name}"):
            a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            seconds = median_seconds(lambda a=a, b=b: a @ b, device, rounds=20, limit=1.5)
            report.measured(f"matrix product {name}", 2 * size**3 / seconds / 1e12, "TFLOP/s", note=f"{size}^3, median")
    torch.set_float32_matmul_precision("highest")
    with report.guarded("matrix product bf16, sustained"):
        a, b = (torch.randn(size, size, device=device, generator=generator).bfloat16() for _ in range(2))
        repeats = 2 if report.dry else 400

        def many() -> None:
            for _ in range(repeats):
                a @ b

        seconds = median_seconds(many, device, rounds=3, warm_up=1, limit=2) / repeats
        note = f"{repeats} in a row: the clock that power and heat allow"
        report.measured("matrix product bf16, sustained", 2 * size**3 / seconds / 1e12, "TFLOP/s", note=note)
        report.measured("machine, warm", 1, "", note=readings(device))
    copies(report)


def copies(report: Report) -> None:
    device, count = report.device, 2**16 if report.dry else 2**30
    with report.guarded("device copy"):
        source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        seconds = median_seconds(lambda: target.copy_(source), device, rounds=20, limit=2)
        report.measured(
            "device copy", 2 * count / seconds / 1e9, "GB/s", note="bytes read plus bytes written, of 1 GiB"
        )
    for pinned in (False, True):
        name = f"copy from {'pinned' if pinned else 'pageable'} host memory"
        with report.guarded(name):
            host = torch.randint(0, 255, (count // 4,), dtype=torch.uint8)
            if pinned and device.type == "cuda":
                host = host.pin_memory()
            target = torch.empty_like(host, device=device)
            seconds = median_seconds(lambda host=host, target=target: target.copy_(host), device, rounds=10, limit=2)
            report.measured(name, len(host) / seconds / 1e9, "GB/s", note="256 MiB")


def machine(device: torch.device) -> str:
    names = ("torch", "accelerate", "timm", "diffusers", "numpy", "safetensors")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    card = "no device"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        card = (
            f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB, {properties.multi_processor_count} SM, "
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    return f"{card}; Python {platform.python_version()}, {versions}; {readings(device)}"


def readings(device: torch.device) -> str:
    """What nvidia-smi reads of clocks, power and temperature."""
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        return "no readings"
    command = ["nvidia-smi", f"--query-gpu={READINGS}", "--format=csv"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.splitlines()
    if len(lines) < 2:
        return "no readings"
    pairs = zip(lines[0].split(", "), lines[1].split(", "), strict=False)
    return ", ".join(f"{name.split(' [')[0]} {value}" for name, value in pairs)
