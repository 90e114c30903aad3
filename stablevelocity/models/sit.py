"""SiT: the scalable interpolant transformer that predicts a velocity (docs/paper.md#checkpoints).

Parameter names and shapes are those of published SiT and REPA checkpoints, so their weights load with
`strict=True`: `x_embedder.proj`, `t_embedder.mlp.{0,2}`, `y_embedder.embedding_table`, `pos_embed`,
`blocks.N.{attn.qkv, attn.proj, mlp.fc1, mlp.fc2, adaLN_modulation.1}`,
`final_layer.{linear, adaLN_modulation.1}`, `projectors.N.{0,2,4}`.

Two options add to that layout (docs/paper.md#va-repa): a 3x3 convolution as projector (iREPA) and an extra class
token with its own velocity head (REG).
"""

import hashlib
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stablevelocity.architectures import SIT_NAMES, SIZES
from stablevelocity.errors import UserError
from stablevelocity.models.layers import Block, FinalLayer, LabelEmbedder, PatchEmbedding, TimeEmbedder, position_table

Latents: TypeAlias = Float[Tensor, "batch channels height width"]
Times: TypeAlias = Float[Tensor, " batch"]
Labels: TypeAlias = Int[Tensor, " batch"]
ClassTokens: TypeAlias = Float[Tensor, "batch class_dim"]


class SiTOutput(NamedTuple):
    """What one forward pass gives.

    velocity: (batch, channels, height, width).
    projections: one (batch, tokens, projector dim) per projector, patch tokens only.
    class_velocity: (batch, class dim) for a model with a class token, else None.
    """

    velocity: Tensor
    projections: tuple[Tensor, ...]
    class_velocity: Tensor | None


class SiT(nn.Module):
    """The network: velocity of x at time t for class y.

    Args:
        input_size: height = width of x, a multiple of `patch_size`.
        depth, width, heads: of the transformer; width a multiple of 4 and of `heads`.
        num_classes: label num_classes is the null class.
        encoder_depth: projectors read the tokens right after this block, counted from 1.
        projector_dims: width of each encoder aligned with; one projector each.
        projector: "mlp" is Linear-SiLU-Linear-SiLU-Linear of width `projector_width` (REPA); "conv" is one
            3x3 convolution over the token grid (iREPA).
        class_dim: width of the encoder's class token that joins the input tokens (REG), or None.
        gradient_checkpointing: recompute each block in the backward pass (less memory, about 1/3 more work).

    Raises:
        UserError: when these do not fit each other.
    """

    def __init__(
        self,
        *,
        input_size: int,
        depth: int,
        width: int,
        heads: int,
        patch_size: int,
        in_channels: int = 4,
        num_classes: int = 1000,
        encoder_depth: int | None = None,
        projector_dims: tuple[int, ...] = (),
        projector: Literal["mlp", "conv"] = "mlp",
        projector_width: int = 2048,
        class_dim: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        # Drawn before anything else is: what follows takes a different count of random numbers for each kind of model.
        self._seed = int(torch.randint(2**62, (), device="cpu"))
        if input_size % patch_size:
            raise UserError(f"SiT: input size {input_size} is not a multiple of patch size {patch_size}")
        if width % heads or width % 4:
            raise UserError(f"SiT: width {width} must be a multiple of 4 and of heads = {heads}")
        if projector_dims and not 1 <= (encoder_depth or 0) <= depth:
            raise UserError(f"SiT: encoder_depth {encoder_depth} given, expected 1 to {depth}")
        if projector not in ("mlp", "conv"):
            raise UserError(f"SiT: projector {projector!r} given, expected 'mlp' or 'conv'")
        self.input_size, self.in_channels, self.patch_size = input_size, in_channels, patch_size
        self.num_classes, self.class_dim = num_classes, class_dim
        self.encoder_depth, self.projector = encoder_depth, projector
        self.gradient_checkpointing = gradient_checkpointing
        self.grid = input_size // patch_size

        self.x_embedder = PatchEmbedding(in_channels, width, patch_size)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(num_classes, width)
        # A frozen parameter, not a buffer: published checkpoints hold it, and it counts in their sizes.
        self.pos_embed = nn.Parameter(position_table(width, self.grid), requires_grad=False)
        self.class_embedder = None if class_dim is None else nn.Linear(class_dim, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch_size**2 * in_channels, class_dim)
        self.projectors = nn.ModuleList(
            _mlp_projector(width, projector_width, dim)
            if projector == "mlp"
            else nn.Conv2d(width, dim, kernel_size=3, padding=1)
            for dim in projector_dims
        )
        if not self.pos_embed.is_meta:  # models that are only counted have no values
            self._initialise()

    def _initialise(self) -> None:
        """Initial values by docs/paper.md#checkpoints; the first output is exactly 0.

        Each weight comes from a generator of its own, so that models of one seed start from the same values wherever
        they have a weight in common: with and without projectors or class token.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                weight = module.weight.flatten(1)  # a view: fills the weight itself
                nn.init.xavier_uniform_(weight, generator=self._generator(f"{name}.weight"))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)
            elif name.endswith("weight") and name.startswith(("t_embedder", "y_embedder")):
                nn.init.normal_(parameter, std=0.02, generator=self._generator(name))

    def _generator(self, name: str) -> torch.Generator:
        digest = hashlib.blake2b(f"{self._seed}/{name}".encode(), digest_size=8).digest()
        return torch.Generator(self.pos_embed.device).manual_seed(int.from_bytes(digest, "little"))

    def compile_blocks(self) -> None:
        """Compile each block by itself: one short compilation serves all of them, and none is cut by DDP's hooks."""
        for block in self.blocks:
            block.compile()

    def forward(self, x: Latents, t: Times, y: Labels, class_token: ClassTokens | None = None) -> SiTOutput:
        """Velocity and projections for training; t in [0, 1], y in [0, num_classes].

        A model built with `class_dim` needs `class_token`, noised by the same path as x.
        """
        return self._run(x, t, y, class_token, project=True)

    def velocity(self, x: Latents, t: Times | float, y: Labels) -> Latents:
        """Velocity alone, for sampling: projectors are skipped, the result has the dtype of x."""
        return self._run(*self._cast(x, t), y, None, project=False).velocity.to(x.dtype)

    def joint_velocity(
        self, x: Latents, class_token: ClassTokens, t: Times | float, y: Labels
    ) -> tuple[Latents, ClassTokens]:
        """Velocities of x and of the class token, for sampling a model with a class token (REG)."""
        cast, times = self._cast(x, t)
        output = self._run(cast, times, y, class_token.to(cast.dtype), project=False)
        assert output.class_velocity is not None
        return output.velocity.to(x.dtype), output.class_velocity.to(x.dtype)

    def _cast(self, x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Samplers keep their state in float64 and one time for the batch; the network has its own dtype."""
        if not isinstance(t, Tensor):
            t = torch.full((len(x),), t, dtype=torch.float32, device=x.device)
        return x.to(self.pos_embed.dtype), t

    def _run(self, x: Tensor, t: Tensor, y: Tensor, class_token: Tensor | None, *, project: bool) -> SiTOutput:
        tokens = self.x_embedder(x) + self.pos_embed
        if self.class_embedder is not None:
            if class_token is None:
                raise ValueError("SiT: a model with a class token was called without `class_token`")
            tokens = torch.cat([self.class_embedder(class_token)[:, None], tokens], dim=1)
        elif class_token is not None:
            raise ValueError("SiT: `class_token` was given to a model built without `class_dim`")
        activated = F.silu(self.t_embedder(t) + self.y_embedder(y))

        projections: tuple[Tensor, ...] = ()
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for number, block in enumerate(self.blocks, start=1):
            if recompute:
                # Nothing in a block is random, so its generator state need not be kept.
                tokens = checkpoint(block, tokens, activated, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens, activated)
            if project and number == self.encoder_depth and len(self.projectors):
                projections = self._project(tokens if self.class_embedder is None else tokens[:, 1:])
        patches, class_velocity = self.final_layer(tokens, activated)
        return SiTOutput(self._unpatchify(patches), projections, class_velocity)

    def _project(self, tokens: Tensor) -> tuple[Tensor, ...]:
        if self.projector == "mlp":
            return tuple(projector(tokens) for projector in self.projectors)
        image = tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return tuple(projector(image).flatten(2).transpose(1, 2) for projector in self.projectors)

    def _unpatchify(self, patches: Tensor) -> Tensor:
        """(batch, rows x columns, p p channels) to (batch, channels, height, width); channels fastest."""
        grid, patch = self.grid, self.patch_size
        patches = patches.reshape(-1, grid, grid, patch, patch, self.in_channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.in_channels, grid * patch, grid * patch)


def _mlp_projector(width: int, hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim)
    )


def build_sit(
    name: str,
    *,
    input_size: int,
    in_channels: int = 4,
    num_classes: int = 1000,
    encoder_depth: int | None = None,
    projector_dims: tuple[int, ...] = (),
    projector: Literal["mlp", "conv"] = "mlp",
    projector_width: int = 2048,
    class_dim: int | None = None,
    gradient_checkpointing: bool = False,
) -> SiT:
    """A SiT of a published size, "SiT-S/2" to "SiT-XL/8"; see `SiT` for the arguments.

    `input_size` is that of the latent (32 for a 256 px image under the SD autoencoder). `encoder_depth` is
    by default 8 for L and XL and 4 for S and B (docs/paper.md#va-repa).
    """
    if name not in SIT_NAMES:
        raise UserError(f"model {name!r} given, expected one of {', '.join(SIT_NAMES)}")
    size, patch = name.removeprefix("SiT-").split("/")
    shape = SIZES[size]
    return SiT(
        input_size=input_size,
        depth=shape["depth"],
        width=shape["width"],
        heads=shape["heads"],
        patch_size=int(patch),
        in_channels=in_channels,
        num_classes=num_classes,
        encoder_depth=encoder_depth or shape["encoder_depth"],
        projector_dims=projector_dims,
        projector=projector,
        projector_width=projector_width,
        class_dim=class_dim,
        gradient_checkpointing=gradient_checkpointing,
    )
