"""Whether an installation is right: its mathematics against closed forms, its packages, devices and files."""
