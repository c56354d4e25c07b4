"""Where the numbers of a training run go."""
