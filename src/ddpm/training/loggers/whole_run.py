"""What is known of a run as a whole, in whatever logger has a place for it beside its curves."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from ddpm.training.loggers.failures import forgiven

Fact = float | int | str


@rank_zero_only
def log_summary(logger: Logger, facts: Mapping[str, Fact]) -> None:
    """Put facts about the run where its dashboard lists runs: W&B's summary; MLflow's metrics for what has a
    fraction, and its tags for all else. Other loggers have no such place.

    W&B's summary has the last value of each curve by itself, under the curve's own name, which its searches
    read; so what is best has a name of its own.

    Args:
        logger: of any kind. Where it fails that is told, and training goes on.
        facts: by name.
    """
    with forgiven(logger, "log_summary"):
        experiment: Any = getattr(logger, "experiment", None)
        if isinstance(logger, WandbLogger):
            experiment.summary.update(dict(facts))
        elif isinstance(logger, MLFlowLogger):
            for name, value in facts.items():
                if isinstance(value, float):
                    experiment.log_metric(logger.run_id, name, value)
                else:
                    experiment.set_tag(logger.run_id, name, value)


@rank_zero_only
def log_card(logger: Logger, rows: Mapping[str, str], step: int = 0) -> None:
    """Show what a run is, a title and a text a row: a table of W&B's, a text of TensorBoard's, the
    description of an MLflow run.

    Args:
        logger: of any kind. Where it fails that is told, and training goes on.
        rows: by title.
        step: completed optimizer steps.
    """
    with forgiven(logger, "log_card"):
        experiment: Any = getattr(logger, "experiment", None)
        table = [[title, text] for title, text in rows.items()]
        if isinstance(logger, WandbLogger):
            logger.log_table("run/card", columns=["what", "is"], data=table, step=step)
        elif isinstance(logger, TensorBoardLogger):
            experiment.add_text("run/card", _markdown(table), step)
        elif isinstance(logger, MLFlowLogger):
            experiment.set_tag(logger.run_id, "mlflow.note.content", _markdown(table))


@rank_zero_only
def log_columns(logger: Logger, configuration: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Have TensorBoard list the run in its table of hyperparameters, by the last value of these curves, which
    are its own: none is written.

    Args:
        logger: of any kind; others list runs by themselves.
        configuration: values by key, with dots.
        metrics: names of curves.
    """
    if not isinstance(logger, TensorBoardLogger):
        return
    with forgiven(logger, "log_columns"):
        from torch.utils.tensorboard.summary import hparams

        values = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in configuration.items()
        }
        writer = logger.experiment._get_file_writer()
        for summary in hparams(values, dict.fromkeys(metrics, 0.0)):
            writer.add_summary(summary)


def _markdown(table: Sequence[Sequence[str]]) -> str:
    cells = ((cell.replace("|", "\\|") for cell in row) for row in table)
    return "\n".join(["| | |", "|---|---|", *(f"| {' | '.join(row)} |" for row in cells)])
