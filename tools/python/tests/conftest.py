from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def tiny_bert():
    """A configuration of two layers, each matrix with sides of 64 or more but the type embeddings."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        hidden_dropout_prob=0.1,
    )


@pytest.fixture
def tiny_gpt2():
    from transformers import GPT2Config

    return GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=4, n_positions=64)


@pytest.fixture
def token_batch():
    """Three samples of 7, 5 and 3 tokens, padded."""
    ids = torch.randint(5, 100, (3, 7))
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    return {"input_ids": ids * mask, "attention_mask": mask}
