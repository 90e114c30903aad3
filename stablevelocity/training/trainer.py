"""The training loop: velocity prediction with the CFM or the StableVM target, and representation alignment.

PAPER: sections 3, 4 and 6. A step reads its random numbers (`randomness.py`), makes the global batch, takes its own
slice of it, and updates; every `checkpoint_every` steps the whole state is saved, and a run that finds a
checkpoint of itself continues from it, bit for bit.
"""

import csv
import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from stablevelocity.alignment import alignment_weight, normalise_tokens, token_alignment
from stablevelocity.data.latents import Latents
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.interpolants import LinearPath
from stablevelocity.models.sit import SiT, build_sit
from stablevelocity.progress import Progress, log
from stablevelocity.reference_bank import ReferenceBank
from stablevelocity.settings import Model
from stablevelocity.study import Run
from stablevelocity.training import checkpoints, randomness
from stablevelocity.training.batches import Batch, BatchMaker
from stablevelocity.training.features import Features

CLASS_TOKEN_COEFFICIENT = 0.03  # REG: weight of the class token's velocity (PAPER: section 4)
STATE_FIELDS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW, per parameter


def build_network(model: Model, latents: Latents, features: Features | None, run: Run) -> SiT:
    """The SiT of a run; projector and class token only where the run uses them."""
    alignment = run.alignment
    shared: dict[str, Any] = {
        "input_size": latents.shape[1],
        "in_channels": latents.shape[0],
        "num_classes": latents.num_classes,
        "projector_dims": (features.width,) if alignment and features else (),
        "projector": alignment.projector if alignment else "mlp",
        "projector_width": model.projector_width,
        "class_dim": features.width if run.class_token and features else None,
        "gradient_checkpointing": run.training.gradient_checkpointing,
    }
    if model.name is not None:
        return build_sit(model.name, **shared)
    sizes = {"depth": model.depth, "width": model.width, "heads": model.heads, "patch_size": model.patch}
    return SiT(encoder_depth=model.encoder_depth, **sizes, **shared)


class Trainer:
    """One training run: `Trainer(run, latents, features, folder).train()`.

    Args:
        run: the resolved run (`Study.runs()[name]`).
        latents: manifest of the latents.
        features: manifest of the encoder's features; needed by runs with alignment or a class token.
        folder: the run's folder; weights, metrics.csv and checkpoints/ are written into it.
        code: hash of the code, part of the run hash.
    """

    def __init__(self, run: Run, latents: Path, features: Path | None, folder: Path, code: str = ""):
        settings = self.settings = run.training
        self.run, self.folder, self.path = run, folder, LinearPath()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(settings.precision, settings.precision),
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
        self.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        if settings.batch % self.world:
            raise UserError(f"training.batch: {settings.batch} does not divide over {self.world} processes")
        self.latents = Latents(latents)
        self.features = None
        if run.alignment or run.class_token:
            if features is None:
                raise UserError(f"{run.name}: alignment needs the encoder's features (--features)")
            grid = self.latents.shape[1] // self._patch(settings.model)
            self.features = Features(features, len(self.latents), grid)
        self.hash = self._hash(latents, features, code)
        self.checkpoints = folder / "checkpoints" / self.hash

        torch.manual_seed(run.seed)
        self.model = build_network(settings.model, self.latents, self.features, run).to(self.device)
        self.ema = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.network: nn.Module = self.accelerator.prepare_model(self.model)
        if settings.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]
        self.bank = self._bank() if run.stablevm else None
        self.batches = BatchMaker(run, self.latents, self.features, self.bank, self.device)
        self.step = 0

    @staticmethod
    def _patch(model: Model) -> int:
        return int(model.name.rsplit("/", 1)[1]) if model.name else model.patch

    def _hash(self, latents: Path, features: Path | None, code: str) -> str:
        """Hash of all that the weights depend on. How often to log or save is not part of it."""
        settings = self.run.model_dump(mode="json", exclude={"training": {"checkpoint_every", "log_every"}})
        data = [path.read_text() for path in (latents, features) if path is not None]
        text = json.dumps([settings, data, code], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _bank(self) -> ReferenceBank:
        assert self.run.stablevm is not None
        settings = self.run.stablevm.bank
        return ReferenceBank(
            self.latents.num_classes,
            settings.capacity,
            self.latents.shape,
            dtype=getattr(torch, settings.dtype),
            device=self.device if settings.device == "accelerator" else torch.device("cpu"),
            null_capacity=settings.null_capacity,
        )

    # --- state -----------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Tensor]:
        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        state |= {f"ema.{name}": tensor for name, tensor in self.ema.items()}
        for name, parameter in self.trained.items():
            for field in STATE_FIELDS:
                state[f"optimizer.{field}.{name}"] = self.optimizer.state[parameter][field]
        if self.bank is not None:
            state |= {f"bank.{name}": tensor for name, tensor in self.bank.state_dict().items()}
        return state

    def save(self) -> None:
        """Save the whole state at this step; on the first process only."""
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
            info = {"step": self.step, "run": self.run.name, "hash": self.hash, "scaler": scaler}
            checkpoints.save_tensors(checkpoints.checkpoint_path(self.checkpoints, self.step), self._state(), info)
            checkpoints.prune(self.checkpoints, set(self.run.steps))
        self.accelerator.wait_for_everyone()

    def resume(self) -> bool:
        """Continue from the last checkpoint of this very run, if there is one."""
        steps = checkpoints.checkpoint_steps(self.checkpoints)
        if not steps:
            return False
        state, info = checkpoints.load_tensors(checkpoints.checkpoint_path(self.checkpoints, steps[-1]))

        def part(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        for name, tensor in part("ema.").items():
            self.ema[name].copy_(tensor)
        for name, parameter in self.trained.items():
            fields = {field: state[f"optimizer.{field}.{name}"] for field in STATE_FIELDS}
            self.optimizer.state[parameter] = {
                field: value if field == "step" and self.device.type == "cpu" else value.to(self.device)
                for field, value in fields.items()
            }
        if self.bank is not None:
            self.bank.load_state_dict(part("bank."))
        if info["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(info["scaler"])
        self.step = info["step"]
        return True

    # --- one step --------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of a slice of the global batch and its parts; per-sample tensors for the log, detached."""
        output = self.network(batch.x_t, batch.t, batch.labels, batch.class_token_t)
        per_sample = (output.velocity.float() - batch.target).square().flatten(1).mean(1)
        loss = per_sample.mean()
        parts = {"velocity": per_sample.detach()}
        if self.run.class_token:
            class_loss = (output.class_velocity.float() - batch.class_target).square().mean()
            loss = loss + CLASS_TOKEN_COEFFICIENT * class_loss
        if self.run.alignment is not None:
            tokens = batch.tokens
            if self.run.alignment.spatial_norm is not None:
                tokens = normalise_tokens(tokens, self.run.alignment.spatial_norm)
            aligned = token_alignment(output.projections[0].float(), tokens)
            # Normalised by the weights of the global batch, known to every process; the mean over processes
            # that DDP takes then equals the global weighted mean.
            weighted = (batch.weight * aligned).sum() * len(batch.t_global) / len(batch.t)
            total = batch.weight_global.sum()
            loss = loss + self.run.alignment.coefficient * torch.where(total > 0, weighted / total.clamp_min(1e-30), 0.0)
            parts["alignment"] = aligned.detach()
        return {"loss": loss, **parts}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step on this process's slice; gradients are averaged over processes."""
        settings = self.settings
        micro = settings.micro_batch or len(batch.t)
        pieces = batch.split(min(micro, len(batch.t)))
        collected: list[dict[str, Tensor]] = []
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            with self._sync(last), self.accelerator.autocast():
                losses = self.losses(piece)
                self.accelerator.backward(losses["loss"] / len(pieces))
            collected.append({name: value.detach() for name, value in losses.items()})
        if self.accelerator.scaler:
            self.accelerator.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trained.values(), settings.clip)
        if self.accelerator.scaler:
            self.accelerator.scaler.step(self.optimizer)
            self.accelerator.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_ema()
        merged = {
            name: torch.cat([piece[name].reshape(-1) for piece in collected]) for name in collected[0]
        }
        return {**merged, "grad_norm": norm}

    def _sync(self, last: bool) -> Any:
        import contextlib

        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.network)

    @torch.no_grad()
    def _update_ema(self) -> None:
        """EMA with warm-up: decay min(decay, (1 + n)/(10 + n)) after n updates."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        torch._foreach_lerp_(
            [self.ema[name] for name in self.trained], [current[name] for name in self.trained], 1 - decay
        )

    # --- the run ---------------------------------------------------------------------------------------

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or to the next step boundary after `should_stop()`.

        Returns True when finished: `weights/step-*.safetensors` (EMA) and metrics.csv are then in the folder.
        Raises UserError when the loss is not finite, after writing the state to `checkpoints/<hash>/`.
        """
        settings = self.settings
        main = self.accelerator.is_main_process
        if self.resume():
            log.info(f"train {self.run.name}: continues from step {self.step}")
        elif self.bank is not None:
            self.batches.fill_bank(self.run.seed)
        stream = MetricsStream(self.checkpoints / "metrics.csv", self.step) if main else None
        progress = Progress(f"train {self.run.name}", settings.steps, "steps", start=self.step)
        record = Record(self.run.alignment.xi if self.run.alignment else 0.7)
        with ThreadPoolExecutor(1) as reader:
            upcoming = reader.submit(self.batches.read, self.step)
            while self.step < settings.steps:
                read = upcoming.result()
                upcoming = reader.submit(self.batches.read, min(self.step + 1, settings.steps - 1))
                batch = self.batches.make(read, self.rank, self.world)
                values = self.update(batch)
                self.step += 1
                record.add(batch, values)
                if not record.finite():
                    self._stop_on_non_finite(values)
                finished = self.step == settings.steps
                if self.step % settings.log_every == 0 or finished:
                    row = record.row(self.accelerator)
                    if stream:
                        rate = progress.rate * settings.batch
                        stream.write({"step": self.step, **row, "images_per_s": rate, "memory_mb": self._memory()})
                if main:
                    progress.update(loss=record.last)
                stopping = self._any(should_stop()) if self.step % 10 == 0 or self.world == 1 else False
                if self.step % settings.checkpoint_every == 0 or self.step in self.run.steps or stopping:
                    self.save()
                if stopping and not finished:
                    log.info(f"train {self.run.name}: stopped at step {self.step}, state saved")
                    return False
        if main:
            self.export()
        self.accelerator.wait_for_everyone()
        return True

    def _any(self, flag: bool) -> bool:
        if self.world == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.device), "sum") > 0)

    def _memory(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def _stop_on_non_finite(self, values: dict[str, Tensor]) -> None:
        dump = self.checkpoints / f"non-finite-step-{self.step:08d}.safetensors"
        if self.accelerator.is_main_process:
            checkpoints.save_tensors(dump, {**self._state(), **values}, {"step": self.step, "run": self.run.name})
        raise UserError(
            f"{self.run.name}: the loss is not finite at step {self.step}; state written to {dump}; "
            f"a lower training.lr (now {self.settings.lr}) or precision fp32 or bf16 may help"
        )

    def export(self) -> None:
        """Write the run's results from its checkpoints: EMA weights of each kept step, and metrics.csv."""
        for step in self.run.steps:
            state, _ = checkpoints.load_tensors(checkpoints.checkpoint_path(self.checkpoints, step))
            weights = {name[4:]: value for name, value in state.items() if name.startswith("ema.")}
            info = {
                "kind": "ema",
                "step": step,
                "run": self.run.model_dump(mode="json"),
                "hash": self.hash,
                "latents": json.loads(self.latents.describe()),
                "shape": self.latents.shape,
                "num_classes": self.latents.num_classes,
                "feature_width": self.features.width if self.features else None,
            }
            checkpoints.save_tensors(weights_path(self.folder, step), weights, info)
        with atomic_write(self.folder / "metrics.csv") as temporary:
            shutil.copyfile(self.checkpoints / "metrics.csv", temporary)


def weights_path(folder: Path, step: int) -> Path:
    """Where a run keeps its EMA weights of `step`."""
    return folder / "weights" / f"step-{step:08d}.safetensors"


class Record:
    """Means of what was seen since the last row of metrics.csv, by regime (below and above xi)."""

    def __init__(self, xi: float):
        self.xi = xi
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, list[Tensor]] = {}
        self.last = float("nan")

    def _put(self, name: str, values: Tensor) -> None:
        entry = torch.stack([values.sum(), torch.tensor(float(values.numel()), device=values.device)])
        self._sums.setdefault(name, []).append(entry)

    def add(self, batch: Batch, values: dict[str, Tensor]) -> None:
        low = batch.t < self.xi
        self._put("loss", values["loss"])
        self._put("grad_norm", values["grad_norm"])
        for name in ("velocity", "alignment"):
            if name in values:
                self._put(f"{name}_low", values[name][low])
                self._put(f"{name}_high", values[name][~low])
        self._put("target_variance", batch.target_deviation)
        self.last = values["loss"].mean().item()

    def finite(self) -> bool:
        return self.last - self.last == 0.0

    def row(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all processes; empties the record."""
        names = sorted(self._sums)
        totals = torch.stack([torch.stack(self._sums[name]).sum(0) for name in names])
        totals = accelerator.reduce(totals, "sum")
        last = self.last
        self._clear()
        self.last = last
        means = (totals[:, 0] / totals[:, 1]).tolist()
        return dict(zip(names, means, strict=True))


class MetricsStream:
    """metrics.csv as it grows: rows after the resumed step are dropped, each new row is flushed at once."""

    def __init__(self, path: Path, step: int):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, str]] = []
        if path.exists():
            with open(path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["step"] and int(row["step"]) <= step]
        self._file = None
        self._fields = list(rows[0]) if rows else None
        with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
            if self._fields:
                writer = csv.DictWriter(file, self._fields)
                writer.writeheader()
                writer.writerows(rows)

    def write(self, row: dict[str, float]) -> None:
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, self._fields or list(row))
            if self._fields is None:
                self._fields = list(row)
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
            file.flush()
            os.fsync(file.fileno())
