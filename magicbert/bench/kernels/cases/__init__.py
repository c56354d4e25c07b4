"""One file per operation: its sizes, its floors, and who competes."""
