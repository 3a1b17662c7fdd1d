"""Shards that are read one after the other and shuffled in a buffer, for sets larger than disk or memory."""
