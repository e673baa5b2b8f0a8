"""How much one document may cost."""

from dataclasses import asdict, dataclass, replace
from typing import Any

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What the child process may use and how much it may give back, for one document.

    `cpu_s` and `wall_s` grow with the file (`for_file`); the wall clock is longer, because other
    documents share the processor. `memory_bytes` is address space, more than what is resident.
    `output_bytes` counts the extraction as JSON. `zip_ratio` is unpacked over packed size and is
    looked at only above `zip_ratio_from_bytes`: small XML packs hundredfold by honest means.
    """

    file_bytes: int = 200 * MEBIBYTE
    cpu_s: int = 60
    cpu_s_per_mebibyte: int = 8
    cpu_s_most: int = 600
    wall_s: int = 180
    memory_bytes: int = 2048 * MEBIBYTE
    output_bytes: int = 96 * MEBIBYTE
    pages: int = 5_000
    characters: int = 20_000_000
    zip_entries: int = 20_000
    zip_bytes: int = 1024 * MEBIBYTE
    zip_ratio: int = 200
    zip_ratio_from_bytes: int = 64 * MEBIBYTE
    image_pixels: int = 12_000_000

    def for_file(self, size_bytes: int) -> "Limits":
        """Give a larger file more time: 60 CPU seconds and 8 more a MiB, 600 at most."""
        extra_s = size_bytes // MEBIBYTE * self.cpu_s_per_mebibyte
        cpu_s = max(self.cpu_s, min(self.cpu_s + extra_s, self.cpu_s_most))
        return replace(self, cpu_s=cpu_s, wall_s=self.wall_s + 3 * (cpu_s - self.cpu_s))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


DEFAULT = Limits()
