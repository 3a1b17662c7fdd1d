"""Where images come from, and how a global batch is made of them."""
