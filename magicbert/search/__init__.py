"""Search over a trained supernet: candidates scored with inherited weights, spaces shrunk."""
