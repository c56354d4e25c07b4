"""Compression: blocks trained against a teacher, chosen from tables, and distilled (NAS-BERT)."""
