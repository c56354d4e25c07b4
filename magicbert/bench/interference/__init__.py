"""``magicbert bench interference``: cosines of many gradients, and what the probe adds to a step."""
