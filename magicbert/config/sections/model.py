"""The search space and the sizes of the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceSection:
    """The search space: which operators each layer may hold."""

    preset: Literal["main", "analysis", "custom"] = option(
        "main", "'main' and 'analysis' are the paper's; 'custom' takes candidates as given"
    )
    num_layers: int = option(0, "layers; 0 = the preset's", within="[0, 1000]")
    candidates: tuple[str, ...] = option(
        (), "operators of each layer, such as [mha12, ffn, conv3, conv5]; empty = the preset's"
    )
    layers: tuple[str, ...] = option(
        (),
        "for 'custom', instead of num_layers and candidates: the operators of each layer, such as "
        "[mha12, mha12|ffn|conv3]",
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.layers and (self.preset != "custom" or self.num_layers or self.candidates):
            yield "layers: need preset 'custom', without num_layers and candidates"
        elif self.preset == "custom" and not (self.layers or (self.num_layers and self.candidates)):
            yield "preset: 'custom' needs num_layers and candidates, or layers"
        if len(set(self.candidates)) != len(self.candidates):
            yield f"candidates: must be distinct, got {list(self.candidates)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSection:
    """Sizes and dropout of the encoder."""

    hidden_size: int = option(768, "width of the encoder", within="[4, 65536]")
    embedding_size: int = option(
        0,
        "width of the token and position tables, projected to the encoder's; 0 = the same",
        within="[0, 65536]",
    )
    max_length: int = option(512, "longest row the position table can hold", within="[8, 65536]")
    dropout: float = option(0.1, "dropout of operator outputs and embeddings", within="[0, 1)")
    attention_dropout: float = option(0.1, "dropout of the attention weights", within="[0, 1)")
    initializer_range: float = option(
        0.02, "standard deviation of the initial weights", within="(0, 10]"
    )
    position_initializer_range: float = option(
        0.0, "that of the position table; 0 = initializer_range", within="[0, 10]"
    )
