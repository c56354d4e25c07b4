"""The BERT tenant: operators on text, the supernet over them, and its objectives."""
