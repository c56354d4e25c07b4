"""The encoder: one operator per layer.

Shape suffixes: B rows, S positions, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .operators import build_layer
from .segments import Segments


class Encoder(nn.Module):
    """The chain of operators that the configuration's architecture names."""

    # Set, together with `_gradient_checkpointing_func`, by `gradient_checkpointing_enable`.
    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__()
        before = (config.entry_size, *config.widths)
        self.layers = nn.ModuleList(
            build_layer(name, config, from_size)
            for name, from_size in zip(config.operators, before, strict=False)
        )
        if before[-1] != config.hidden_size:
            raise ValueError(
                f"hidden_size {config.hidden_size} is not the width of the last operator, "
                f"{config.operators[-1]!r}, which heads read"
            )

    def forward(
        self, hidden_BSH: Tensor, segments: Segments, keep_all: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Returns the last hidden state, with ``keep_all`` also the first and every layer's."""
        kept = [hidden_BSH] if keep_all else None
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                hidden_BSH = self._gradient_checkpointing_func(layer, hidden_BSH, segments)
            else:
                hidden_BSH = layer(hidden_BSH, segments)
            if kept is not None:
                kept.append(hidden_BSH)
        return hidden_BSH, None if kept is None else tuple(kept)
