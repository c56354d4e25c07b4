"""``magicbert bench search``: paths scored together against the loop that scores one by one."""
