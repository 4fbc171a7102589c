"""A learning rate beside that of the run."""

from torch import nn


class OwnRate(nn.Module):
    """A module whose parameters train at a learning rate of their own and without weight decay."""

    def __init__(self, *, lr: float) -> None:
        super().__init__()
        self.lr = lr
