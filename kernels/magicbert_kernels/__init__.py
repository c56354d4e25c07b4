"""Kernels of magicbert: one folder per kernel, each with a plain PyTorch reference.

Imports torch and, where a kernel runs, triton; nothing here looks at the hardware at import.
"""
