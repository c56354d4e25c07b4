"""DeepSpeed's ZeRO optimizers, limited to the operators of the path just trained.

Stock DeepSpeed fills missing gradients with zeros, so AdamW decays operators that were not
sampled, moves them by old momentum and counts steps they did not take. Here everything that
happens at the end of a step (reduction, norm, update, gathering of weights) covers the groups of
the sampled path and the shared groups, and nothing else.
"""
