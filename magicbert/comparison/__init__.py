"""Models side by side: what they cost, how long they take, how good they are."""
