import torch

from project.models.layers.patterned_queries import patterned_queries


def test_patterns_repeat_the_anchors() -> None:
    anchors = torch.rand(2, 4)
    content, patterns = torch.rand(3), torch.rand(3, 3)
    contents, repeated = patterned_queries(content, anchors, patterns)
    assert torch.equal(contents, (content + patterns)[[0, 0, 1, 1, 2, 2]])
    assert torch.equal(repeated, anchors[[0, 1] * 3])
    contents, kept = patterned_queries(content, anchors)
    assert torch.equal(contents, torch.stack([content, content]))
    assert torch.equal(kept, anchors)
