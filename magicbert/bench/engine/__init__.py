"""``magicbert bench engine``: a step of a supernet against a step of only its path.

Four contenders train the same small chain of layers on the same tokens and paths: magicbert's
path-sparse engine, stock DeepSpeed on the supernet, torch's DistributedDataParallel on the
supernet, and, as the yardstick of each, a plain model that holds one path's operators, on stock
DeepSpeed at the same ZeRO stage.
"""
