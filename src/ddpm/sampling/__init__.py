"""Drawing many images, by batch and with progress, and pictures of them."""
