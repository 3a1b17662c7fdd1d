"""Numbers of each image, added to the embedding of the timestep: of an array, or columns of a table."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Vector:
    """Numbers that a network is conditioned on. See docs/data.md, "Pairs and numbers".

    Args:
        key: of an array [N] or [N, D], for data=arrays and data=npz.
        columns: of a table among the files, for data=folder and data=archive, as in [age, height].

    Raises:
        ValueError: for settings that cannot be.
    """

    key: str | None = None
    columns: Sequence[str] | str | None = None

    def __post_init__(self) -> None:
        if (self.key is None) == (self.columns is None):
            raise ValueError(
                "data.condition: a vector needs data.condition.key=ARRAY for data=arrays, or "
                "data.condition.columns=[COLUMN,...] for data=folder and data=archive"
                + ("" if self.key is None else "; both are given")
            )
        if self.columns is not None and (
            not self.names
            or not all(isinstance(name, str) and name for name in self.names)
            or len(set(self.names)) != len(self.names)
        ):
            raise ValueError(
                f"data.condition.columns={self.columns} must be names of columns, each once, as in "
                "[age,height]"
            )

    @property
    def names(self) -> list[str]:
        """The columns that are asked for."""
        columns = self.columns or ()
        return [columns] if isinstance(columns, str) else list(columns)

    @property
    def typed(self) -> str:
        """The key that says where the numbers are, for messages."""
        if self.key is not None:
            return f"data.condition.key={self.key}"
        return f"data.condition.columns=[{','.join(map(str, self.names))}]"
