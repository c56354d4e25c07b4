"""Interference: how far the gradients that paths send into a shared operator disagree (MAGIC 3)."""
