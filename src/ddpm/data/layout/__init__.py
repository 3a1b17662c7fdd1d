"""What people mean by how they lay out images: parts, classes and captions from names and side files."""
