"""The network agrees with an independent, naive forward, and with the published sizes and layout."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from stablevelocity.errors import UserError
from stablevelocity.models.sit import SiT, SiTOutput, build_sit, position_table

SMALL = {"input_size": 8, "depth": 3, "width": 32, "heads": 4, "patch_size": 2, "num_classes": 10}


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter random: zero-initialised layers would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.08)
    return model.eval()


def inputs(batch: int = 3, size: int = 8, classes: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, size, size, generator=generator)
    t = torch.rand(batch, generator=generator)
    y = torch.randint(classes + 1, (batch,), generator=generator)
    return x, t, y


def naive_forward(
    state: dict[str, np.ndarray], x: np.ndarray, t: float, y: int, *, depth: int, heads: int, patch: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """One sample, float64 numpy, loops over patches and heads, written from docs/paper.md#checkpoints alone.

    Returns the velocity (channels, height, width) and the tokens after every block.
    """

    def linear(name: str, h: np.ndarray) -> np.ndarray:
        return h @ state[name + ".weight"].T + state[name + ".bias"]

    def silu(h: np.ndarray) -> np.ndarray:
        return h / (1 + np.exp(-h))

    def gelu(h: np.ndarray) -> np.ndarray:
        return 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))

    def norm(h: np.ndarray) -> np.ndarray:
        mean = h.mean(-1, keepdims=True)
        return (h - mean) / np.sqrt(((h - mean) ** 2).mean(-1, keepdims=True) + 1e-6)

    channels, size, _ = x.shape
    grid = size // patch
    weight = state["x_embedder.proj.weight"]
    tokens = []
    for row in range(grid):
        for column in range(grid):
            piece = x[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            tokens.append((weight * piece).sum(axis=(1, 2, 3)) + state["x_embedder.proj.bias"])
    h = np.stack(tokens) + state["pos_embed"][0]
    width = h.shape[1]

    features = [math.cos(10000 ** (-i / 128) * t) for i in range(128)]
    features += [math.sin(10000 ** (-i / 128) * t) for i in range(128)]
    time = linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", np.array(features))))
    condition = silu(time + state["y_embedder.embedding_table.weight"][y])

    after = []
    for n in range(depth):
        block = f"blocks.{n}."
        chunks = linear(block + "adaLN_modulation.1", condition)
        shift1, scale1, gate1, shift2, scale2, gate2 = (chunks[k * width : (k + 1) * width] for k in range(6))
        qkv = linear(block + "attn.qkv", norm(h) * (1 + scale1) + shift1)
        q, k, v = qkv[:, :width], qkv[:, width : 2 * width], qkv[:, 2 * width :]
        each = width // heads
        mixed = np.zeros_like(h)
        for head in range(heads):
            part = slice(head * each, (head + 1) * each)
            logits = q[:, part] @ k[:, part].T / math.sqrt(each)
            weights = np.exp(logits - logits.max(1, keepdims=True))
            mixed[:, part] = weights / weights.sum(1, keepdims=True) @ v[:, part]
        h = h + gate1 * linear(block + "attn.proj", mixed)
        inner = gelu(linear(block + "mlp.fc1", norm(h) * (1 + scale2) + shift2))
        h = h + gate2 * linear(block + "mlp.fc2", inner)
        after.append(h)

    shift, scale = np.split(linear("final_layer.adaLN_modulation.1", condition), 2)
    out = linear("final_layer.linear", norm(h) * (1 + scale) + shift)
    image = np.zeros_like(x)
    for token, values in enumerate(out):
        row, column = divmod(token, grid)
        for p in range(patch):
            for q_ in range(patch):
                for c in range(channels):
                    image[c, row * patch + p, column * patch + q_] = values[(p * patch + q_) * channels + c]
    return image, after


def published_layout(size: str, patch: int, grid: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published state dict, by hand."""
    depth, width = {"S": (12, 384), "XL": (28, 1152)}[size]
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, grid * grid, width),
        "x_embedder.proj.weight": (width, 4, patch, patch),
        "x_embedder.proj.bias": (width,),
        "t_embedder.mlp.0.weight": (width, 256),
        "t_embedder.mlp.0.bias": (width,),
        "t_embedder.mlp.2.weight": (width, width),
        "t_embedder.mlp.2.bias": (width,),
        "y_embedder.embedding_table.weight": (1001, width),
        "final_layer.linear.weight": (patch * patch * 4, width),
        "final_layer.linear.bias": (patch * patch * 4,),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width),
        "final_layer.adaLN_modulation.1.bias": (2 * width,),
    }
    outputs = {"attn.qkv": 3, "attn.proj": 1, "mlp.fc1": 4, "mlp.fc2": 1, "adaLN_modulation.1": 6}
    for n in range(depth):
        for name, times in outputs.items():
            columns = 4 * width if name == "mlp.fc2" else width
            shapes[f"blocks.{n}.{name}.weight"] = (times * width, columns)
            shapes[f"blocks.{n}.{name}.bias"] = (times * width,)
    for layer, (rows, columns) in {0: (2048, width), 2: (2048, 2048), 4: (768, 2048)}.items():
        shapes[f"projectors.0.{layer}.weight"] = (rows, columns)
        shapes[f"projectors.0.{layer}.bias"] = (rows,)
    return shapes


def test_a_published_s2_state_dict_loads_strictly_and_gives_the_naive_output() -> None:
    rng = np.random.default_rng(0)
    state = {
        name: (rng.standard_normal(shape) * (0.5 / math.sqrt(shape[-1]))).astype(np.float32)
        for name, shape in published_layout("S", 2, 4).items()
    }
    model = build_sit("SiT-S/2", input_size=8, projector_dims=(768,)).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()}, strict=True)
    x, t, y = inputs(2, classes=1000)
    with torch.no_grad():
        output = model(x, t, y)
    precise = {name: value.astype(np.float64) for name, value in state.items()}
    for k in range(2):
        velocity, after = naive_forward(
            precise, x[k].double().numpy(), float(t[k]), int(y[k]), depth=12, heads=6, patch=2
        )
        # float32 against float64 through 12 blocks: about 1e-6 of the largest value.
        np.testing.assert_allclose(output.velocity[k].numpy(), velocity, atol=2e-5 * np.abs(velocity).max())
        hidden = after[3]  # block 4, counted from 1
        for layer in (0, 2, 4):
            hidden = hidden @ precise[f"projectors.0.{layer}.weight"].T + precise[f"projectors.0.{layer}.bias"]
            hidden = hidden / (1 + np.exp(-hidden)) if layer < 4 else hidden
        np.testing.assert_allclose(
            output.projections[0][k].numpy(), hidden, atol=2e-5 * np.abs(hidden).max(), rtol=1e-4
        )


@pytest.mark.parametrize("heads,patch,size", [(4, 2, 8), (2, 4, 16), (8, 8, 16)])
def test_small_shapes_give_the_naive_output(heads: int, patch: int, size: int) -> None:
    shape = SMALL | {"heads": heads, "patch_size": patch, "input_size": size}
    model = randomised(SiT(**shape))
    x, t, y = inputs(2, size)
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    with torch.no_grad():
        velocity = model.velocity(x, t, y)
    for k in range(2):
        expected, _ = naive_forward(
            state, x[k].double().numpy(), float(t[k]), int(y[k]), depth=3, heads=heads, patch=patch
        )
        np.testing.assert_allclose(velocity[k].numpy(), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name,plain,projected",
    [  # docs/paper.md#checkpoints
        ("SiT-S/2", 32_957_200, 39_515_664),
        ("SiT-B/2", 130_500_112, 137_845_008),
        ("SiT-L/2", 458_086_416, 465_955_600),
        ("SiT-XL/2", 675_111_184, 683_242_512),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, plain: int, projected: int) -> None:
    with torch.device("meta"):
        models = [build_sit(name, input_size=32, projector_dims=dims) for dims in ((), (768,))]
    assert [sum(p.numel() for p in model.parameters()) for model in models] == [plain, projected]


def test_state_dict_has_exactly_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        model = build_sit("SiT-XL/2", input_size=32, projector_dims=(768,))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == published_layout("XL", 2, 16)


def test_positions_encode_the_column_first_and_sine_first() -> None:
    table = position_table(16, 3)[0].numpy()
    frequencies = [10000 ** (-i / 4) for i in range(4)]
    for row in range(3):
        for column in range(3):
            expected = [f(w * p) for p in (column, row) for f in (math.sin, math.cos) for w in frequencies]
            np.testing.assert_allclose(table[row * 3 + column], expected, atol=1e-7)


def test_the_first_output_is_zero_and_no_parameter_is_left_without_a_gradient() -> None:
    model = SiT(**SMALL, encoder_depth=2, projector_dims=(6,), projector_width=16)
    x, t, y = inputs()
    assert torch.equal(model(x, t, y).velocity, torch.zeros_like(x))
    model = randomised(model)
    output: SiTOutput = model(x, t, y)
    (output.velocity.square().sum() + output.projections[0].square().sum()).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_initial_values_follow_the_paper() -> None:
    torch.manual_seed(0)
    model = SiT(**SMALL | {"width": 128, "num_classes": 500})
    patch = model.x_embedder.proj.weight  # 16 inputs, 128 outputs, Xavier-uniform: bound sqrt(6 / 144)
    bound = math.sqrt(6 / 144)
    assert 0.95 * bound < patch.abs().max() <= bound
    qkv = model.blocks[0].attn.qkv.weight
    assert 0.99 * math.sqrt(6 / 512) < qkv.abs().max() <= math.sqrt(6 / 512)
    for normal in (model.y_embedder.embedding_table, model.t_embedder.mlp[0], model.t_embedder.mlp[2]):
        # 16,384 draws or more: the standard deviation is known to 0.6 %.
        assert normal.weight.std().item() == pytest.approx(0.02, rel=0.03)


def test_velocity_equals_the_training_output_and_keeps_the_callers_dtype() -> None:
    model = randomised(SiT(**SMALL, encoder_depth=1, projector_dims=(5,)))
    x, _, y = inputs()
    with torch.no_grad():
        full = model(x, torch.full((3,), 0.3), y).velocity
        sampled = model.velocity(x.double(), 0.3, y)
    assert sampled.dtype == torch.float64
    assert torch.equal(sampled.float(), full)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        model = randomised(SiT(**SMALL, encoder_depth=2, projector_dims=(5,), gradient_checkpointing=recompute))
        output = model.train()(*inputs())
        (output.velocity.square().sum() + output.projections[0].sum()).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_conv_projector_is_a_padded_3x3_correlation_over_the_token_grid() -> None:
    model = randomised(SiT(**SMALL, encoder_depth=3, projector_dims=(5,), projector="conv"))
    x, t, y = inputs(1)
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    with torch.no_grad():
        projection = model(x, t, y).projections[0][0].numpy()
    _, after = naive_forward(state, x[0].double().numpy(), float(t), int(y), depth=3, heads=4, patch=2)
    padded = np.zeros((6, 6, 32))
    padded[1:5, 1:5] = after[2].reshape(4, 4, 32)
    kernel, bias = state["projectors.0.weight"], state["projectors.0.bias"]
    for row in range(4):
        for column in range(4):
            window = padded[row : row + 3, column : column + 3]
            expected = np.einsum("abc,ocab->o", window, kernel) + bias
            np.testing.assert_allclose(projection[row * 4 + column], expected, atol=1e-5)


def test_class_token_joins_the_tokens_and_has_its_own_velocity() -> None:
    model = randomised(SiT(**SMALL, class_dim=12, encoder_depth=2, projector_dims=(5,)))
    x, t, y = inputs()
    token = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))
    output = model(x, t, y, token)
    assert output.velocity.shape == x.shape
    assert output.class_velocity.shape == token.shape
    assert output.projections[0].shape == (3, 16, 5)
    # Each velocity depends on both inputs, through attention.
    moved = model(x, t, y, token + 1)
    assert not torch.allclose(moved.velocity, output.velocity)
    assert not torch.allclose(model(x + 1, t, y, token).class_velocity, output.class_velocity)
    velocity, class_velocity = model.joint_velocity(x.double(), token.double(), t, y)
    assert torch.equal(velocity.float(), output.velocity)
    assert torch.equal(class_velocity.float(), output.class_velocity)


def test_a_class_token_is_demanded_or_refused() -> None:
    x, t, y = inputs()
    with pytest.raises(ValueError, match="class_token"):
        SiT(**SMALL, class_dim=12)(x, t, y)
    with pytest.raises(ValueError, match="class_dim"):
        SiT(**SMALL)(x, t, y, torch.zeros(3, 12))


@pytest.mark.parametrize(
    "change,words",
    [
        ({"input_size": 9}, "patch size"),
        ({"heads": 5}, "heads"),
        ({"projector_dims": (8,)}, "encoder_depth"),
        ({"projector_dims": (8,), "encoder_depth": 4}, "1 to 3"),
    ],
)
def test_shapes_that_do_not_fit_are_user_errors(change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        SiT(**SMALL | change)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="SiT-XL/2"):
        build_sit("SiT-M/2", input_size=32)


def test_half_precision_keeps_the_time_features_exact() -> None:
    """In bfloat16 t = 0.5 and t = 0.501 are one number; the features must be made in float32."""
    model = randomised(SiT(**SMALL)).bfloat16()
    x, _, y = inputs()
    near, far = (model(x.bfloat16(), torch.full((3,), t), y).velocity for t in (0.5, 0.5009))
    assert not torch.equal(near, far)


@pytest.mark.parametrize(
    "more",
    [
        {"encoder_depth": 2, "projector_dims": (6,), "projector_width": 16},
        {"encoder_depth": 2, "projector_dims": (6,), "projector": "conv"},
        {"class_dim": 12},
    ],
    ids=["REPA", "iREPA", "REG"],
)
def test_models_of_one_seed_start_from_the_same_values_where_they_share_weights(more) -> None:
    def model(**options) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return SiT(**SMALL, **options).state_dict()

    plain, other = model(), model(**more)
    assert set(plain) <= set(other)
    assert [name for name in plain if not torch.equal(plain[name], other[name])] == []
    # The next model of the same process is another one.
    assert not torch.equal(SiT(**SMALL).blocks[0].attn.qkv.weight, other["blocks.0.attn.qkv.weight"])
