import pytest
import torch

from stablevelocity.errors import UserError
from stablevelocity.pretrained.words import TOKENS, encode_words, pooled


def test_the_order_of_words_counts():
    a, b = encode_words(["red two", "two red"])
    assert not torch.allclose(pooled(a[None]), pooled(b[None]), atol=0.1)


def test_the_empty_prompt_is_no_condition():
    assert not encode_words([""]).any()


def test_a_prompt_does_not_depend_on_its_companions_and_is_zero_after_its_end():
    alone, together = encode_words(["a red two"]), encode_words(["a blue five and a one", "a red two"])
    assert torch.equal(alone[0], together[1])
    assert not alone[0, 3:].any()
    assert alone[0, :3].std() == pytest.approx(1.0, abs=0.2)


def test_embeddings_are_the_same_on_every_machine():
    # Recorded once from a run of this code: a saved model means nothing with other embeddings.
    assert encode_words(["a red seven"])[0, 1, :3].tolist() == pytest.approx(RECORDED, abs=1e-5)


def test_too_long_a_prompt_is_refused_in_one_line():
    with pytest.raises(UserError, match=f"takes {TOKENS}"):
        encode_words(["one two three four five six seven eight nine"])


RECORDED = [-1.9084880, 0.6379606, 0.7330235]
