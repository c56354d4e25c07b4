"""``magicbert bench kernels``: each kernel against what a user would run in its place."""
