"""What turns pictures into features, which quality is measured by."""
