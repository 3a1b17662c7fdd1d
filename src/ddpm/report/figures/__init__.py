"""Figures of publication quality, one a file: what a run does, and how it went."""
