"""The tutorial's AlexNet: one of the two halves of Krizhevsky, Sutskever, Hinton 2012."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["AlexNet"]


class AlexNet(nn.Module):
    """48-128-192-192-128 kernels; input (N, 3, 224, 224), output (N, num_classes).

    The ReLUs work in place, as in the tutorial: they overwrite what the convolutions return.
    """

    def __init__(self, num_classes: int = 1000, inplace: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 48, kernel_size=11, stride=4, padding=2),  # (48, 55, 55)
            nn.ReLU(inplace),
            nn.MaxPool2d(kernel_size=3, stride=2),  # (48, 27, 27)
            nn.Conv2d(48, 128, kernel_size=5, padding=2),  # (128, 27, 27)
            nn.ReLU(inplace),
            nn.MaxPool2d(kernel_size=3, stride=2),  # (128, 13, 13)
            nn.Conv2d(128, 192, kernel_size=3, padding=1),  # (192, 13, 13)
            nn.ReLU(inplace),
            nn.Conv2d(192, 192, kernel_size=3, padding=1),  # (192, 13, 13)
            nn.ReLU(inplace),
            nn.Conv2d(192, 128, kernel_size=3, padding=1),  # (128, 13, 13)
            nn.ReLU(inplace),
            nn.MaxPool2d(kernel_size=3, stride=2),  # (128, 6, 6)
        )
        self.classifier = nn.Sequential(
            nn.Dropout(p=0.5),
            nn.Linear(128 * 6 * 6, 2048),
            nn.ReLU(inplace),
            nn.Dropout(p=0.5),
            nn.Linear(2048, 2048),
            nn.ReLU(inplace),
            nn.Linear(2048, num_classes),
        )
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) -> (N, num_classes)"""
        x = self.features(x)
        x = torch.flatten(x, start_dim=1)  # (N, 128 * 6 * 6)
        return self.classifier(x)


def _initialise(module: nn.Module) -> None:
    # He et al. 2015 for the convolutions, a small normal for the classifier: the tutorial's choice.
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
