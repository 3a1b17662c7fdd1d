"""Figures of publication quality that only reports have, one a file; others: `ddpm.sampling.figures`."""
