"""How layers start, in every network: uniform by fan-in and fan-out, or zero."""

from torch import nn


def xavier(layer: nn.Module) -> None:
    """Weights of a linear layer or convolution uniform by the mean of fan-in and fan-out, biases zero (Glorot
    and Bengio 2010, eq. 16), as in the code of Ho et al. 2020 and of Peebles and Xie 2023. Others stay.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def zero(layer: nn.Module) -> None:
    """Everything of a layer that is learnt."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
