"""What is said about devices: which computes and how, its memory and its speed; progress on the terminal."""
