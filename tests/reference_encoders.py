"""Random BERT, RoBERTa and ELECTRA models of transformers, and their weights from ours."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from bert_examples import randomise
from torch import Tensor, nn

SIZES = {
    "vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 56, "max_position_embeddings": 20,
}  # fmt: skip
CONFIGS = {
    "bert": transformers.BertConfig,
    "roberta": transformers.RobertaConfig,
    "electra": transformers.ElectraConfig,
}
LENGTH = 16


def reference(kind: str, **sizes: object) -> nn.Module:
    """Builds a model of transformers by its class name, everything in it random."""
    family = next(name for name in CONFIGS if kind.lower().startswith(name))
    own = {"electra": {"embedding_size": 10}, "roberta": {"pad_token_id": 1}}.get(family, {})
    config = CONFIGS[family](**(SIZES | own | sizes))
    return randomise(getattr(transformers, kind)(config)).eval()


def save_reference(folder: Path, kind: str, **sizes: object) -> nn.Module:
    """Builds a model and saves it as a folder of safetensors."""
    model = reference(kind, **sizes)
    model.save_pretrained(folder)
    return model


def rows(pad_id: int) -> tuple[Tensor, Tensor]:
    """Returns ids and mask of two rows, the second one padded."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, SIZES["vocab_size"], (2, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    return torch.where(mask > 0, ids, pad_id), mask


def reference_names(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Renames our encoder's weights, ``model.`` in front, to those of transformers.

    Written from the formulas of both, not from the importer: each checks the other.
    """
    weights = {}
    names = {"tokens": "word_embeddings", "positions": "position_embeddings", "norm": "LayerNorm"}
    attention = {"output": "attention.output.dense", "norm": "attention.output.LayerNorm"}
    forward = {"inner": "intermediate.dense", "outer": "output.dense", "norm": "output.LayerNorm"}
    for name, value in state.items():
        part, *rest = name.removeprefix("model.").split(".")
        if part == "embeddings" and rest[0] == "project":
            weights[f"{prefix}.embeddings_project.{rest[1]}"] = value
        elif part == "embeddings":
            weights[f"{prefix}.embeddings.{names[rest[0]]}.{rest[1]}"] = value
        elif part == "encoder":
            _, number, module, kind = rest
            layer = f"{prefix}.encoder.layer.{int(number) // 2}"
            if module == "query_key_value":
                for projection, third in zip(
                    ("query", "key", "value"), value.chunk(3), strict=True
                ):
                    weights[f"{layer}.attention.self.{projection}.{kind}"] = third
            else:
                table = forward if int(number) % 2 else attention
                weights[f"{layer}.{table[module]}.{kind}"] = value
    table = weights[f"{prefix}.embeddings.word_embeddings.weight"]
    weights[f"{prefix}.embeddings.token_type_embeddings.weight"] = table.new_zeros(
        2, table.shape[1]
    )
    return weights
