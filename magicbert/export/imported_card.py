"""The model card of an imported checkpoint: where it comes from and what differs."""

from __future__ import annotations

import yaml

from magicbert.bert.importing import Imported

AUTO_CLASSES = {
    "masked-lm": "AutoModelForMaskedLM",
    "discriminator": "AutoModelForPreTraining",
    "none": "AutoModel",
}


def imported_card(source: str, imported: Imported) -> str:
    """Returns the text of ``README.md``."""
    config = imported.model.config
    metadata = {
        "library_name": "transformers",
        "base_model": source,
        "tags": ["magicbert", imported.family],
    }
    kind = AUTO_CLASSES[imported.head]
    return (
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n"
        f"# {source.rstrip('/').rsplit('/', 1)[-1]}, imported\n\n"
        f"The {imported.family} checkpoint `{source}` as a magicbert encoder: "
        f"`{config.architecture}`, hidden size {config.hidden_size}. Weights and licence are those "
        "of the original.\n\n"
        "On rows of one text the outputs equal the original's up to rounding. There are no type "
        "embeddings: that of type 0 is part of the positions, so both texts of a pair get it.\n\n"
        "```python\n"
        f"from transformers import {kind}\n\n"
        f'model = {kind}.from_pretrained("path/to/this/folder", trust_remote_code=True)\n'
        "```\n"
    )
