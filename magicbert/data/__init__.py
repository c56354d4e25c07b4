"""From raw text to batches of masked tokens: corpora, tokenizer, packed rows, order, masking."""
