"""A page to play with trained runs: what it can be asked, how that is drawn, and what it shows."""
