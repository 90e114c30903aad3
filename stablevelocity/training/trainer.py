"""The training loop: velocity prediction with the CFM or the StableVM target, and representation alignment.

Protocol: docs/paper.md#imagenet. A step reads its random numbers (`randomness.py`), makes the global batch, takes its
own slice of it, and updates; every `checkpoint_every` steps the whole state is saved, and a run that finds a
checkpoint of itself continues from it, bit for bit.
"""

import contextlib
import json
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from stablevelocity.alignment import alignment_loss, negative_cosine
from stablevelocity.data.latents import Latents
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.models.networks import build_network
from stablevelocity.models.train_small import update_average, warmed_decay
from stablevelocity.models.weight_files import save_tensors
from stablevelocity.progress import Progress, log
from stablevelocity.study import Run
from stablevelocity.training import checkpoints
from stablevelocity.training.batches import Batch, BatchMaker, build_bank
from stablevelocity.training.features import open_features
from stablevelocity.training.identity import run_hash, trainers_code
from stablevelocity.training.metrics import MetricsStream, Record, memory_mb
from stablevelocity.training.results import publish, record_results, result_files
from stablevelocity.training.transfers import HostCopy

CLASS_TOKEN_COEFFICIENT = 0.03  # REG: weight of the class token's velocity (docs/paper.md#va-repa)
MOST_SKIPPED = 32  # steps in a row, by the scaler of fp16: from its first scale, 2^16, down to 2^-16
AHEAD = 2  # steps that are read ahead, each by a thread: a slow read is hidden by two steps
STATE_FIELDS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW, per parameter


class Trainer:
    """One training run: `Trainer(run, latents, features, folder).train()`.

    Args:
        run: the resolved run (`Study.runs()[name]`).
        latents: manifest of the latents.
        features: manifest of the encoder's features; needed by runs with alignment or a class token.
        folder: the run's folder; weights, metrics.csv and checkpoints/ are written into it.
        begun: the hash under which the run was begun; without it that of its settings and data.
    """

    def __init__(self, run: Run, latents: Path, features: Path | None, folder: Path, begun: str = ""):
        settings = self.settings = run.training
        self.run, self.folder = run, folder
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if settings.precision == "fp16" and not torch.cuda.is_available():
            raise UserError(f"{run.name}: training.precision fp16 needs a GPU; expected fp32 or bf16 on a CPU")
        self.accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(settings.precision, settings.precision),
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
        self.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        if settings.batch % self.world:
            raise UserError(f"training.batch: {settings.batch} does not divide over {self.world} processes")
        # Checksums once, not once per process.
        main = self.accelerator.is_main_process
        self.latents = Latents(latents, checksums=main)
        self.features = None
        if run.alignment or run.class_token:
            if features is None:
                raise UserError(f"{run.name}: alignment needs the encoder's features (--features)")
            grid = self.latents.shape[1] // settings.model.sizes.patch
            self.features = open_features(features, len(self.latents), grid, self.device, checksums=main)
        self.hash = begun or run_hash(run, latents, features)
        self.inputs = [latents, *([features] if self.features and features else [])]
        self.codes = [trainers_code()]  # that trained the run, the last one at the end
        self.checkpoints = folder / "checkpoints" / self.hash

        width = self.features.width if self.features else None
        torch.manual_seed(run.seed)
        self.model = build_network(run, self.latents.shape, self.latents.num_classes, width).to(self.device)
        self.ema = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._averaged = [self.ema[name] for name in self.trained]
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
        )
        if settings.compile:
            self.model.compile_blocks()
        self.network: nn.Module = self.accelerator.prepare_model(self.model)
        bank = build_bank(run, self.latents, self.device) if run.stablevm else None
        self.batches = BatchMaker(run, self.latents, self.features, bank, self.device, self.rank, self.world)
        self.record = Record(run.alignment.xi if run.alignment else 0.7)
        self.writer = checkpoints.CheckpointWriter(self.checkpoints, set(run.steps))
        self.should_stop: Callable[[], bool] = lambda: False
        self.stopping = False
        self.skipped = 0  # steps in a row
        self.step = 0

    # --- state -----------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Tensor]:
        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        state |= {f"ema.{name}": tensor for name, tensor in self.ema.items()}
        for name, parameter in self.trained.items():
            # Empty before the first step.
            for field, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{field}.{name}"] = value
        return state | self.batches.state_dict()

    def save(self) -> None:
        """Save the whole state at this step; called on every process, written by the first beside the next steps."""
        totals = {f"record.{name}": value for name, value in self.record.totals(self.accelerator).items()}
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
            info = {"step": self.step, "run": self.run.name, "hash": self.hash, "scaler": scaler, "codes": self.codes}
            self.writer.write(self.step, self._state() | totals, info)

    def resume(self) -> bool:
        """Continue from the last checkpoint of this very run, if there is one."""
        checkpoint = checkpoints.load_last(self.checkpoints, self.run.steps, self.accelerator.is_main_process)
        if checkpoint is None:
            return False
        state, info = checkpoint

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
        self.batches.load_state_dict(state)
        if self.accelerator.is_main_process:
            self.record.load(part("record."), self.device)
        if info["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(info["scaler"])
        self.step = info["step"]
        self.codes = [code for code in info["codes"] if code != self.codes[0]] + self.codes
        return True

    # --- one step --------------------------------------------------------------------------------------

    def losses(self, batch: Batch, weight_sum: float) -> dict[str, Tensor]:
        """Loss of a slice of the global batch, and its parts per sample, detached, for the log.

        `weight_sum` is the sum of w(t) over the global batch.
        """
        output = self.network(batch.x_t, batch.t, batch.labels, batch.class_token_t)
        per_sample = (output.velocity.float() - batch.target).square().flatten(1).mean(1)
        loss = per_sample.mean()
        parts = {"velocity": per_sample.detach()}
        if self.run.class_token:
            assert batch.class_target is not None
            class_loss = (output.class_velocity.float() - batch.class_target).square().mean()
            loss = loss + CLASS_TOKEN_COEFFICIENT * class_loss
        if self.run.alignment is not None:
            projected, tokens, weight = output.projections[0], batch.tokens, batch.weight
            assert tokens is not None
            assert weight is not None
            # Divided by the weights of the global batch and scaled by its share, so that the mean over pieces
            # and processes is the weighted mean over the global batch.
            aligned = alignment_loss(projected, tokens, weight, torch.full((), weight_sum, device=self.device))
            loss = loss + self.run.alignment.coefficient * aligned * self.settings.batch / len(batch.t)
            parts["alignment"] = negative_cosine(projected.detach(), tokens)
        return {"loss": loss, **parts}

    def update(self, batch: Batch, weight_sum: float) -> dict[str, Tensor]:
        """One optimizer step on this process's slice; gradients are averaged over processes.

        Raises UserError when the loss or the gradient of any process is not finite; nothing is then updated.
        """
        settings = self.settings
        micro = settings.micro_batch or len(batch.t)
        pieces = batch.split(min(micro, len(batch.t)))
        collected: list[dict[str, Tensor]] = []
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            unshared = contextlib.nullcontext() if last else self.accelerator.no_sync(self.network)
            with unshared, self.accelerator.autocast():
                losses = self.losses(piece, weight_sum)
                # Pieces may differ in size: each counts by its share of the samples. The last factor is 1, and NaN for
                # a loss that is not finite: then neither is the gradient, on any process.
                share = len(piece.t) / len(batch.t)
                self.accelerator.backward(losses["loss"] * share * (1 + 0 * losses["loss"].detach()))
            collected.append({name: value.detach() for name, value in losses.items()})
        if self.accelerator.scaler:
            self.accelerator.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trained.values(), settings.clip)
        merged = {name: torch.cat([piece[name].reshape(-1) for piece in collected]) for name in collected[0]}
        merged["grad_norm"] = norm
        flags = self._anywhere(~merged["loss"].isfinite().all(), ~norm.isfinite(), self.should_stop())
        if self.accelerator.scaler:
            self.accelerator.scaler.step(self.optimizer)
            self.accelerator.scaler.update()
        else:
            # The device itself skips the step of a gradient that is not finite, so the host need not know before.
            self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        # The one wait of a step, while the device is busy with the optimizer: it does not run out of work.
        failed, overflow, self.stopping = (value > 0 for value in flags.tolist())
        # A gradient scaler expects gradients that overflow: it skips these steps and lowers its scale.
        self.skipped = self.skipped + 1 if overflow else 0
        if failed or (overflow and not self.accelerator.scaler) or self.skipped > MOST_SKIPPED:
            self._stop_on_non_finite(merged)
        if self.accelerator.scaler:
            merged["skipped"] = torch.full((1,), float(overflow), device=self.device)
            merged["grad_norm"] = norm.reshape(1)[int(overflow) :]  # of the steps that were made
        self.optimizer.zero_grad(set_to_none=True)
        self._update_ema()
        return merged

    def _update_ema(self) -> None:
        update_average(self._averaged, self.trained.values(), warmed_decay(self.settings.ema, self.step))

    # --- the run ---------------------------------------------------------------------------------------

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or to the end of a step in which `should_stop()`, asked once a step, is true.

        Returns True when finished: `weights/step-*.safetensors` (EMA) and metrics.csv are then in the folder.
        Raises UserError when the loss is not finite, after writing the state to `checkpoints/<hash>/`.
        """
        settings, self.should_stop = self.settings, should_stop
        main = self.accelerator.is_main_process
        if main:
            checkpoints.clear_leftovers(self.checkpoints)
        if self.resume():
            log.info(f"train {self.run.name}: continues from step {self.step}")
        else:
            if main:
                checkpoints.tell_of_others(self.checkpoints)
            if self.batches.bank is not None:
                self.batches.fill_bank()
        stream = MetricsStream(self.checkpoints / "metrics.csv", self.step) if main else None
        progress = Progress(f"train {self.run.name}", settings.steps, "steps", start=self.step)
        record = self.record
        with self.writer, ThreadPoolExecutor(AHEAD) as readers:
            upcoming = deque(readers.submit(self.batches.read, self.step + k) for k in range(AHEAD))
            while self.step < settings.steps:
                read = upcoming.popleft().result()
                upcoming.append(readers.submit(self.batches.read, self.step + AHEAD))
                batch = self.batches.make(read)
                values = self.update(batch, read.weight_sum)
                self.step += 1
                record.add(batch, values)
                self.writer.check()
                if main:
                    progress.update(loss=record.last)
                finished = self.step == settings.steps
                if self.step % settings.log_every == 0 or finished:
                    row = record.row(self.accelerator)
                    if stream:
                        rate, memory = progress.rate * settings.batch, memory_mb(self.device)
                        stream.write({"step": self.step, **row, "images_per_s": rate, "memory_mb": memory})
                if self.step % settings.checkpoint_every == 0 or self.step in self.run.steps or self.stopping:
                    self.save()
                if self.stopping and not finished:
                    break
        if self.step == settings.steps and main:
            self.export()
        self.accelerator.wait_for_everyone()
        if self.step < settings.steps:
            log.info(f"train {self.run.name}: stopped at step {self.step}, state saved")
        return self.step == settings.steps

    def _anywhere(self, failed: Tensor, overflow: Tensor, stop: bool) -> HostCopy:
        """How many processes failed, had a gradient that overflows, are to stop: all of them act at the same step."""
        flags = torch.stack([failed.float(), overflow.float(), torch.full((), float(stop), device=self.device)])
        raised = self.accelerator.reduce(flags, "sum")
        assert isinstance(raised, Tensor)
        return HostCopy(raised)

    def _stop_on_non_finite(self, values: dict[str, Tensor]) -> None:
        step = self.step + 1
        dump = self.checkpoints / f"non-finite-step-{step:08d}.safetensors"
        if self.accelerator.is_main_process:
            # The state before the step, and the losses and gradient norm of the step itself.
            losses = {f"step.{name}": value for name, value in values.items()}
            save_tensors(dump, {**self._state(), **losses}, {"step": self.step, "run": self.run.name})
        self.accelerator.wait_for_everyone()  # the first process that ends may take the others with it
        again = f", as at the {self.skipped - 1} steps before it" if self.skipped > 1 else ""
        raise UserError(
            f"{self.run.name}: the loss or its gradient is not finite at step {step}{again}; "
            f"the state before it is in {dump}; try a lower training.lr (now {self.settings.lr}) or another precision"
        )

    def export(self) -> None:
        """Write the run's results from its checkpoints: EMA weights of each kept step, and metrics.csv."""
        for step, path in result_files(self.checkpoints, self.run.steps):
            state, _ = checkpoints.load_kept(self.checkpoints, step)
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
            save_tensors(path, weights, info)
        with atomic_write(self.checkpoints / "result" / "metrics.csv") as temporary:
            shutil.copyfile(self.checkpoints / "metrics.csv", temporary)
        record_results(self.checkpoints, self.run, self.inputs, self.codes, self.world)
        publish(self.checkpoints, self.folder, self.run.steps)
