"""Studies of many small trainings: what is known about a supernet's ranking comes from them."""
