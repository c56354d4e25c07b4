"""``magicbert bench data``: tokenizer, masking and loader, and how long training waits for them."""
