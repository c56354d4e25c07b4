"""The report: one self-contained HTML page of a run, drawn from its records."""
