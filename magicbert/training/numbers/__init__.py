"""What is done about losses, gradients and weights that are not what they should be."""
