"""Typed configuration: one root dataclass per verb, read and validated once."""
