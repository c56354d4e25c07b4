"""The Hugging Face folder that a user takes away."""
