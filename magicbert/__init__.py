"""magicbert: one-shot neural architecture search for BERT, from raw text to an exported model."""

__version__ = "0.1.0"
