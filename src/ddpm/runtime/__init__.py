"""What is said about devices: precision, layout, memory, arithmetic, progress on the terminal."""
