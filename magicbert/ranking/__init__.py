"""Rank fidelity: does a supernet order architectures as training each of them alone does?"""
