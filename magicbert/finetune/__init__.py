"""Fine-tuning on GLUE: tasks as data, one cell of a grid at a time, results that survive a kill."""
