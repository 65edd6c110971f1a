"""Trains a small detector on one batch; .ci/gpu runs it.

``python -m tests.helpers.short_training CONFIG PRECISION STEPS``, of which the
precision is fp32, fp16, bf16 or compiled.
"""

import sys

import torch

import project  # noqa: F401
from tests.helpers.toy import build_model, toy_batch, toy_model_config

HALF = {'fp16': torch.float16, 'bf16': torch.bfloat16}


def train(config: str, precision: str, steps: int) -> list[float]:
    """Losses of all steps."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = build_model(toy_model_config(config)).to(device).train()
    if precision == 'compiled':
        model.forward_transformer = torch.compile(model.forward_transformer)
    batch, samples = toy_batch()
    batch = batch.to(device)
    samples = [sample.to(device) for sample in samples]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(device, enabled=precision == 'fp16')
    losses = []
    for _ in range(steps):
        with torch.autocast(
            device, HALF.get(precision), enabled=precision in HALF
        ):
            loss, _ = model.parse_losses(model.loss(batch, samples))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


if __name__ == '__main__':
    losses = train(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(f'loss {losses[0]:.2f} -> {losses[-1]:.2f}')
    sys.exit(not losses[-1] < losses[0])
