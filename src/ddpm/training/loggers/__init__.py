"""Where the scalars and pictures of a run go.

Any logger of Lightning does; a value stands in each at the number of completed optimizer steps.
"""

from ddpm.training.loggers.alerts import raise_alert
from ddpm.training.loggers.failures import may_fail
from ddpm.training.loggers.metrics_csv import MetricsCSV
from ddpm.training.loggers.pictures import log_picture
from ddpm.training.loggers.provided import provided
from ddpm.training.loggers.steps import at_completed_steps
from ddpm.training.loggers.wandb import WandbLogger
from ddpm.training.loggers.whole_run import log_card, log_columns, log_summary

__all__ = [
    "MetricsCSV",
    "WandbLogger",
    "at_completed_steps",
    "log_card",
    "log_columns",
    "log_picture",
    "log_summary",
    "may_fail",
    "provided",
    "raise_alert",
]
