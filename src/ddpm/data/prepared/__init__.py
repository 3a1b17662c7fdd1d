"""Images that are prepared once and kept for the runs that follow."""
