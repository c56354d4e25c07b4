"""From one command to ranks that may begin: what the machine must have, and how they meet."""
