"""What a person reads of runs once they have been trained."""
