"""``BertForMaskedLM`` of transformers with the weights of one of magicbert's paths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from magicbert.bench.step.sizes import DROPOUT, VOCAB_SIZE, ModelSize
from magicbert.bert.supernet import BertSupernet


def transformers_bert(size: ModelSize, max_length: int, source: BertSupernet) -> BertForMaskedLM:
    """Returns the model; it computes what the source does on its path of ``mha, ffn`` pairs."""
    config = BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=4 * size.hidden_size,
        max_position_embeddings=max_length,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
        layer_norm_eps=source.config.layer_norm_eps,
    )
    model = BertForMaskedLM(config)
    copy_weights(source, model, size)
    return model


@torch.no_grad()
def copy_weights(source: BertSupernet, model: Any, size: ModelSize) -> None:
    """Copies every weight; token types, which magicbert has none of, become zero."""
    embeddings = model.bert.embeddings
    embeddings.word_embeddings.weight.copy_(source.embeddings.tokens.weight)
    embeddings.position_embeddings.weight.copy_(source.embeddings.positions.weight)
    embeddings.token_type_embeddings.weight.zero_()
    copy_module(source.embeddings.norm, embeddings.LayerNorm)
    for number, layer in enumerate(model.bert.encoder.layer):
        copy_attention(source.operator(2 * number, f"mha{size.num_heads}"), layer.attention)
        feed_forward: Any = source.operator(2 * number + 1, "ffn")
        copy_module(feed_forward.inner, layer.intermediate.dense)
        copy_module(feed_forward.outer, layer.output.dense)
        copy_module(feed_forward.norm, layer.output.LayerNorm)
    head = model.cls.predictions
    copy_module(source.transform.dense, head.transform.dense)
    copy_module(source.transform.norm, head.transform.LayerNorm)
    head.bias.copy_(source.decoder_bias)


def copy_attention(source: Any, target: Any) -> None:
    """Copies one attention; magicbert keeps the three projections in one matrix."""
    parts = ("query", "key", "value")
    weights, biases = (
        tensor.chunk(3) for tensor in (source.query_key_value.weight, source.query_key_value.bias)
    )
    for name, weight, bias in zip(parts, weights, biases, strict=True):
        projection = getattr(target.self, name)
        projection.weight.copy_(weight)
        projection.bias.copy_(bias)
    copy_module(source.output, target.output.dense)
    copy_module(source.norm, target.output.LayerNorm)


def copy_module(source: nn.Module, target: nn.Module) -> None:
    """Copies weight and bias."""
    given: dict[str, Tensor] = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        parameter.copy_(given[name])
