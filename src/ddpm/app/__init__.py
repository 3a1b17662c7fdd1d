"""The application: what train.py, sample.py and `ddpm.load` call. The only room that imports Hydra."""
