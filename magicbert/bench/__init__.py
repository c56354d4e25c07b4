"""Measurements side by side with peers, one package per target of ``magicbert bench``."""
