"""A deterministic word encoder: what stands in the place of CLIP, T5 and Qwen-VL in the tiny pipelines.

Each word is a fixed Gaussian vector seeded by its spelling; a token adds its own word, the word before it (turned by a
fixed rotation, so that "red two" differs from "two red") and its place. Nothing is learned, so the embeddings of a
prompt are the same on every machine.
"""

import functools
import hashlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stablevelocity.errors import UserError

WIDTH = 64
TOKENS = 8


@functools.cache
def _word(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(WIDTH)


@functools.cache
def _fixed() -> tuple[np.ndarray, np.ndarray]:
    """A rotation and one vector per place."""
    generator = np.random.default_rng(0)
    rotation, triangle = np.linalg.qr(generator.standard_normal((WIDTH, WIDTH)))
    # Signs are LAPACK's choice otherwise.
    return rotation * np.sign(np.diag(triangle)), generator.standard_normal((TOKENS, WIDTH))


def encode_words(prompts: list[str]) -> Float[Tensor, "batch tokens width"]:
    """Embeddings of the prompts, zero after the last word; the empty prompt (no condition) is all zero.

    Raises UserError for a prompt of more than `TOKENS` words.
    """
    rotation, places = _fixed()
    encoded = np.zeros((len(prompts), TOKENS, WIDTH))
    for row, prompt in enumerate(prompts):
        words = prompt.lower().split()
        if len(words) > TOKENS:
            raise UserError(f"prompt {prompt!r} has {len(words)} words; the word encoder takes {TOKENS}")
        for i, word in enumerate(words):
            before = rotation @ _word(words[i - 1]) if i else 0
            encoded[row, i] = (_word(word) + before + places[i]) / np.sqrt(3)
    return torch.from_numpy(encoded).to(torch.float32)


def pooled(embeddings: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
    """One vector per prompt: the sum over its words, scaled by their usual number."""
    return embeddings.sum(1) / TOKENS**0.5
