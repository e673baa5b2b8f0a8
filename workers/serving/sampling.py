"""Choose the next token of each row. B rows, V vocabulary."""

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from workers.serving.generation import Sampling


class Sampler:
    """The choices of one row: its settings, its own random numbers, the tokens so far."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int], device: torch.device) -> None:
        self.sampling = sampling
        self.seed: int | None = None
        self._ids = list(prompt_ids)
        if sampling.do_sample:
            self.seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
            # torch takes 64 bits, signed or not; the clients' seeds are unsigned.
            self._random = torch.Generator(device).manual_seed(self.seed)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the log-probabilities to choose from. logits: (V,) float32; so is the result."""
        sampling = self.sampling
        if sampling.repetition_penalty != 1.0 or sampling.frequency_penalty != 0.0:
            logits = self._penalized(logits)
        if sampling.do_sample:
            logits = _warped(logits, sampling)
        return torch.log_softmax(logits, dim=-1)

    def choose(self, scores: Tensor) -> int:
        if not self.sampling.do_sample:
            return int(scores.argmax())
        return int(torch.multinomial(scores.exp(), 1, generator=self._random))

    def saw(self, token_id: int) -> None:
        self._ids.append(token_id)

    def _penalized(self, logits: Tensor) -> Tensor:
        ids, counts = torch.tensor(self._ids, device=logits.device).unique(return_counts=True)
        seen = logits[ids]
        penalty = self.sampling.repetition_penalty
        seen = torch.where(seen < 0, seen * penalty, seen / penalty)
        seen = seen - self.sampling.frequency_penalty * counts / len(self._ids)
        return logits.index_put((ids,), seen)


def _warped(logits: Tensor, sampling: Sampling) -> Tensor:
    """Apply temperature, top-k, top-p and typical-p, in this order. logits: (V,)."""
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], -torch.inf)
    if sampling.top_p < 1.0:
        logits = _keep_mass(logits, -logits, sampling.top_p)
    if sampling.typical_p < 1.0:
        # Source: Meister et al., Locally Typical Sampling, 2023.
        log_probs = torch.log_softmax(logits, dim=-1)
        entropy = -(log_probs * log_probs.exp()).nansum()
        logits = _keep_mass(logits, (-log_probs - entropy).abs(), sampling.typical_p)
    return logits


def _keep_mass(logits: Tensor, order: Tensor, mass: float) -> Tensor:
    """Keep the tokens with the least `order` until their probabilities reach `mass`."""
    indices = order.argsort(stable=True)
    probabilities = logits.softmax(dim=-1)[indices]
    before = probabilities.cumsum(dim=-1) - probabilities  # the first one is always kept
    return logits.index_fill(0, indices[before >= mass], -torch.inf)
