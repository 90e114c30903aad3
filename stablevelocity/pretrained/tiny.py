"""Tiny models of the real classes: SD3, Flux, Qwen-Image and Wan transformers with their autoencoders.

All four see 32-pixel scenes through an autoencoder of factor 4 with 16 latent channels (as the originals have), so a
transformer works on 16 tokens per image or latent frame. Text encoders are absent: `words.encode_words` supplies the
embeddings. Schedules keep the originals' shape: shift 3, or a dynamic shift whose token range is scaled by 64/4096, so
that the step counts of the paper (11 + 9, 8 + 9) hold here too.
"""

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor

from stablevelocity.pretrained.scenes import FRAMES, SIZE
from stablevelocity.pretrained.words import TOKENS, WIDTH, pooled

HEADS, HEAD_WIDTH, LAYERS, CHANNELS = 4, 32, 4, 16
GRID = SIZE // 8  # tokens per side
HEAD: dict[str, Any] = {"num_attention_heads": HEADS, "attention_head_dim": HEAD_WIDTH}
ROPE_AXES = (8, 12, 12)


class TinyFamily(ABC):
    """One architecture: how to build, train and call it.

    Flow latents are standardised, and packed where the transformer takes packed tokens.
    """

    name: str
    pipeline_class: Any
    frames: int | None = None
    #: Whether an autoencoder that starts from another family's trained one is trained further.
    trains_further: bool = False

    @abstractmethod
    def transformer(self) -> Any: ...

    @abstractmethod
    def autoencoder(self) -> Any: ...

    @abstractmethod
    def scheduler(self) -> Any: ...

    @abstractmethod
    def velocity(self, transformer: Any, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The network's output at flow latents x (B, ...), times t (B,), embeddings (B, tokens, width)."""

    def autoencoder_from(self, trained: Any) -> Any:
        """This family's autoencoder, initialised from the trained one of another: here the very same."""
        return trained

    def pipeline(self, transformer: Any, autoencoder: Any) -> DiffusionPipeline:
        parts = inspect.signature(self.pipeline_class.__init__).parameters
        absent = dict.fromkeys(part for part in parts if part.startswith(("text_encoder", "tokenizer")))
        return self.pipeline_class(transformer=transformer, vae=autoencoder, scheduler=self.scheduler(), **absent)

    def save(self, transformer: Any, autoencoder: Any, folder: Path) -> None:
        """Write a pipeline folder in diffusers' own layout (safetensors), for `from_pretrained`."""
        self.pipeline(transformer, autoencoder).save_pretrained(folder, safe_serialization=True)

    def pack(self, latents: Tensor) -> Tensor:
        """Standardised latents (B, C, [T,] H, W) in the layout that the transformer takes."""
        return latents

    def set_statistics(self, autoencoder: Any, mean: Tensor, std: Tensor) -> None:
        """Write the latents' statistics (per channel) where the pipeline reads them."""
        autoencoder.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())

    def encode(self, autoencoder: Any, images: Tensor) -> Tensor:
        """Mean latents of images (B, 3, [T,] H, W) in [-1, 1]; a single frame's time axis comes and goes."""
        return autoencoder.encode(images).latent_dist.mode()

    def decode(self, autoencoder: Any, latents: Tensor) -> Tensor:
        return autoencoder.decode(latents).sample


class _ImageAutoencoder(TinyFamily):
    """SD3 and Flux share the class of their autoencoder, so here they share one autoencoder."""

    def autoencoder(self) -> Any:
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,  # type: ignore[arg-type]
            up_block_types=("UpDecoderBlock2D",) * 3,  # type: ignore[arg-type]
            block_out_channels=(16, 32, 32),  # type: ignore[arg-type]
            layers_per_block=1,
            latent_channels=CHANNELS,
            norm_num_groups=8,
            sample_size=SIZE,
            scaling_factor=1.0,
            shift_factor=0.0,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
        )

    def set_statistics(self, autoencoder: Any, mean: Tensor, std: Tensor) -> None:
        # One number each: the pipelines of these two families standardise all channels alike.
        spread = (std**2 + mean**2).mean() - mean.mean() ** 2
        autoencoder.register_to_config(shift_factor=float(mean.mean()), scaling_factor=float(1 / spread.sqrt()))


class TinySD3(_ImageAutoencoder):
    name = "sd35"
    pipeline_class = StableDiffusion3Pipeline

    def transformer(self) -> Any:
        return SD3Transformer2DModel(
            sample_size=2 * GRID,
            patch_size=2,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=LAYERS,
            joint_attention_dim=WIDTH,
            caption_projection_dim=HEADS * HEAD_WIDTH,
            pooled_projection_dim=WIDTH,
            pos_embed_max_size=2 * GRID,
            qk_norm="rms_norm",
            **HEAD,
        )

    def velocity(self, transformer: Any, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return transformer(x, text, pooled(text), 1000 * t, return_dict=False)[0]

    def scheduler(self) -> Any:
        return FlowMatchEulerDiscreteScheduler(shift=3.0)


class TinyFlux(_ImageAutoencoder):
    name = "flux"
    pipeline_class = FluxPipeline

    def transformer(self) -> Any:
        return FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * CHANNELS,
            num_layers=LAYERS // 2,
            num_single_layers=LAYERS // 2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=False,
            axes_dims_rope=ROPE_AXES,
            **HEAD,
        )

    def pack(self, latents: Tensor) -> Tensor:
        return FluxPipeline._pack_latents(latents, *latents.shape)

    def velocity(self, transformer: Any, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return transformer(
            x,
            encoder_hidden_states=text,
            pooled_projections=pooled(text),
            timestep=t,
            img_ids=torch.cartesian_prod(torch.zeros(1), *[torch.arange(float(GRID))] * 2),
            txt_ids=torch.zeros(TOKENS, 3),
            return_dict=False,
        )[0]

    def scheduler(self) -> Any:
        return FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_image_seq_len=1, max_image_seq_len=GRID**2
        )


class TinyQwenImage(TinyFamily):
    name = "qwen-image"
    pipeline_class = QwenImagePipeline

    def transformer(self) -> Any:
        return QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=4 * CHANNELS,
            out_channels=CHANNELS,
            num_layers=LAYERS,
            joint_attention_dim=WIDTH,
            axes_dims_rope=ROPE_AXES,
            **HEAD,
        )

    def autoencoder(self) -> Any:
        return AutoencoderKLQwenImage(temperal_downsample=[False, False], **_causal_autoencoder())

    def encode(self, autoencoder: Any, images: Tensor) -> Tensor:
        return super().encode(autoencoder, images[:, :, None])[:, :, 0]

    def decode(self, autoencoder: Any, latents: Tensor) -> Tensor:
        return super().decode(autoencoder, latents[:, :, None])[:, :, 0]

    def pack(self, latents: Tensor) -> Tensor:
        return QwenImagePipeline._pack_latents(latents, *latents.shape)

    def velocity(self, transformer: Any, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return transformer(
            x,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=torch.ones(text.shape[:2], dtype=torch.long),
            timestep=t,
            img_shapes=[[(1, GRID, GRID)]] * len(x),
            return_dict=False,
        )[0]

    def scheduler(self) -> Any:
        return FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=0.9,
            base_image_seq_len=1,
            max_image_seq_len=2 * GRID**2,
            shift_terminal=0.02,
        )


class TinyWan(TinyFamily):
    name = "wan22"
    pipeline_class = WanPipeline
    frames = FRAMES
    trains_further = True

    def autoencoder_from(self, trained: Any) -> Any:
        """Qwen-Image's autoencoder, frame by frame: the same network but for the two layers that change the rate.

        Weights that look at earlier frames start at zero (the trained one never saw any), the rate is halved by taking
        every second frame and doubled by repeating each.
        """
        autoencoder = self.autoencoder()
        weights = autoencoder.state_dict()
        for name, weight in trained.state_dict().items():
            weights[name] = weight.clone()
            if weight.ndim == 5 and weight.shape[2] > 1:
                weights[name][:, :, :-1] = 0
        for name, weight in weights.items():
            if "time_conv" in name:
                weight.zero_()
                if weight.ndim == 5:
                    channel = torch.arange(len(weight))
                    weight[channel, channel % weight.shape[1], -1] = 1
        autoencoder.load_state_dict(weights)
        return autoencoder

    def transformer(self) -> Any:
        return WanTransformer3DModel(
            patch_size=(1, 2, 2),
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            text_dim=WIDTH,
            freq_dim=64,
            ffn_dim=4 * HEADS * HEAD_WIDTH,
            num_layers=LAYERS,
            rope_max_seq_len=64,
            **HEAD,
        )

    def autoencoder(self) -> Any:
        scales: dict[str, Any] = {"scale_factor_temporal": 2, "scale_factor_spatial": 4}
        return AutoencoderKLWan(temperal_downsample=[False, True], **_causal_autoencoder(), **scales)

    def velocity(self, transformer: Any, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return transformer(x, 1000 * t, text, return_dict=False)[0]

    def scheduler(self) -> Any:
        return UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)


def _causal_autoencoder() -> dict[str, Any]:
    """What the autoencoders of Qwen-Image and Wan have in common."""
    statistics = {"latents_mean": [0.0] * CHANNELS, "latents_std": [1.0] * CHANNELS}
    return {"base_dim": 16, "z_dim": CHANNELS, "dim_mult": [1, 2, 2], "num_res_blocks": 1, **statistics}


_ALL: tuple[TinyFamily, ...] = (TinySD3(), TinyFlux(), TinyQwenImage(), TinyWan())
TINY_FAMILIES = {family.name: family for family in _ALL}
