"""What a BERT supernet is trained on."""
