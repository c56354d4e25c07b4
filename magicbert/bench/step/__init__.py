"""``magicbert bench step``: a whole training step against what a user would run instead.

A plain BERT against ``BertForMaskedLM`` of transformers, eager and compiled, and a supernet step
against a naive supernet under torch's DistributedDataParallel and under stock DeepSpeed.
"""
