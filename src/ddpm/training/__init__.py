"""The LightningModule and what belongs to a run: randomness, averaged weights, checkpoints, callbacks,
loggers.
"""
