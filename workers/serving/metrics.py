"""Counters and histograms under TGI's names, in Prometheus' text form. No torch."""

from bisect import bisect_left
from collections import Counter

SECONDS = tuple(0.001 * 1.5**n for n in range(30))  # 1 ms to two minutes
TOKENS = tuple(float(2**n) for n in range(16))


class Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        lines, total = [f"# TYPE {name} histogram"], 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            text = bound if isinstance(bound, str) else f"{bound:g}"
            lines.append(f'{name}_bucket{{le="{text}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:g}", f"{name}_count {total}"]


class Metrics:
    """Belongs to the event loop."""

    def __init__(self) -> None:
        self.requests = 0
        self.successes = 0
        self.failures: Counter[str] = Counter()
        self.histograms = {
            "tgi_request_duration": Histogram(SECONDS),
            "tgi_request_queue_duration": Histogram(SECONDS),
            "tgi_request_inference_duration": Histogram(SECONDS),
            "tgi_request_mean_time_per_token_duration": Histogram(SECONDS),
            "tgi_request_generated_tokens": Histogram(TOKENS),
            "tgi_request_input_length": Histogram(TOKENS),
            "tgi_request_max_new_tokens": Histogram(TOKENS),
        }

    def observe(self, **values: float) -> None:
        """Record one request; the names are those of the histograms without "tgi_request_"."""
        for name, value in values.items():
            self.histograms[f"tgi_request_{name}"].observe(value)

    def text(self, *, queue_size: int, batch_size: int) -> str:
        lines = [
            "# TYPE tgi_request_count counter",
            f"tgi_request_count {self.requests}",
            "# TYPE tgi_request_success counter",
            f"tgi_request_success {self.successes}",
            "# TYPE tgi_request_failure counter",
            *(f'tgi_request_failure{{err="{e}"}} {n}' for e, n in self.failures.items()),
            "# TYPE tgi_queue_size gauge",
            f"tgi_queue_size {queue_size}",
            "# TYPE tgi_batch_current_size gauge",
            f"tgi_batch_current_size {batch_size}",
        ]
        for name, histogram in self.histograms.items():
            lines += histogram.lines(name)
        return "\n".join(lines) + "\n"
