"""From images as they are kept, whatever their format and numbers, to bytes of one shape."""
