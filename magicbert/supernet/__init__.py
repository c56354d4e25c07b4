"""The supernet core: what a supernet is, which path is trained, how paths are aligned."""
