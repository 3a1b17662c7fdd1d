"""What happens beside the steps of training: one callback a file."""
