"""The weights of a trained block, read back for a choice between whole models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from magicbert.bert.block_supernet import BlockSupernet
from magicbert.compression.block_training import STATE
from magicbert.errors import UserError


def load_block(supernet: BlockSupernet, folder: Path, device: torch.device) -> BlockSupernet:
    """Fills a block with the weights that its training ended with.

    Args:
        supernet: with the sizes that it was trained with.
        folder: of the block.
        device: where it is to be.

    Returns:
        The block on the device, in evaluation mode.

    Raises:
        UserError: the file is missing, damaged, or of other sizes.
    """
    file = folder / STATE
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        supernet.load_state_dict(state["weights"])
    except Exception as error:  # torch.load raises whatever the bytes make it stumble over
        raise UserError(f"{file}: no weights of this block ({error})") from error
    return supernet.to(device).eval()
