"""``magicbert bench interference``: cosines of gradients, and what the probe adds to a step."""
