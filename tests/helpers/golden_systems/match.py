from dataclasses import dataclass

from torch import Tensor


@dataclass
class Match:
    """Assignment of one layer in one image, as the source found it.

    Args:
        name: Under which the golden has it.
        prefix: Of the prediction set.
        layer: Of the set.
        image: Within the batch.
        queries: Matched queries, has shape (num_pairs, ).
        targets: Their targets within the image, has shape (num_pairs, ).
    """

    name: str
    prefix: str
    layer: int
    image: int
    queries: Tensor
    targets: Tensor
