"""Data sets. To add one, write a class in a new file of this folder and import that file below."""

from vaegan.data import (
    image_folder,
    mnist,
    shapes,
    stacked_mnist,
    streaming,
    torchvision_source,
)
