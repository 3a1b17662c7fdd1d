"""Arrays of images in files that other programs wrote: one file a format, and one that says which is what."""
