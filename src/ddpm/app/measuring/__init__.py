"""What evaluate.py does: a run, several runs or images that are there are measured, and the values shown."""
