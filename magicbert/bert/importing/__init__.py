"""Encoders of others as models of ours: BERT, RoBERTa and ELECTRA checkpoints of Hugging Face.

Their layers are attention and feed-forward in turn, which is one architecture of our spaces:
``mha12-ffn-mha12-ffn-...``. Only numbers are read: safetensors, or a torch file with
``weights_only``; no class and no code of the checkpoint is used.
"""

from __future__ import annotations

from magicbert.bert.importing.encoder import Imported, import_encoder

__all__ = ["Imported", "import_encoder"]
