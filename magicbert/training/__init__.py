"""Training on the DeepSpeed engine: path-sparse optimizers, the loop, checkpoints, launching."""
