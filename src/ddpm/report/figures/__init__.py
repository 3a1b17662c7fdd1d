"""Figures of publication quality that only reports have, one a file; others are in `ddpm.sampling.figures`."""
