"""The encoder: operators, embeddings, heads and the Hugging Face classes, in one flat folder.

An exported model carries a byte-equal copy of these files, and remote code finds only flat
siblings: import siblings with one dot, torch and transformers, and ``magicbert_kernels`` inside
``try``, nothing else.
"""
