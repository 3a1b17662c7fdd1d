"""Many jobs of one command: how each is started, how far it is, and what came out."""
