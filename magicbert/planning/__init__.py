"""What a run will take, computed before anything is started: memory, steps, FLOPs, hours.

Everything here is arithmetic on sizes; who calls it knows the model.
"""
