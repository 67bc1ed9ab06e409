"""The training line, on the screen and in MLflow under the same names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    step: int
    steps: int
    loss: float
    """Nats per token, of this step."""
    norm: float
    """Global gradient norm before clipping."""
    lr: float
    mfu: float | None
    """Share of the devices' peak; None where that is not known."""
    tokens_per_second: float
    data: float
    """Share of the time spent waiting for data."""
    eta_seconds: float

    def text(self) -> str:
        mfu = "n/a" if self.mfu is None else f"{100 * self.mfu:.1f}%"
        return (
            f"step {self.step}/{self.steps} | loss {self.loss:.4f} | norm {self.norm:.4f} | lr {self.lr:.1e} | "
            f"mfu {mfu} | {amount(self.tokens_per_second)} tok/s | data {100 * self.data:.1f}% | "
            f"eta {duration(self.eta_seconds)}"
        )

    def metrics(self) -> dict[str, float]:
        known = {"mfu": 100 * self.mfu} if self.mfu is not None else {}
        return {
            "loss": self.loss, "norm": self.norm, "lr": self.lr, "tok/s": self.tokens_per_second,
            "data": 100 * self.data, **known,
        }  # fmt: skip


def amount(number: float) -> str:
    """1.02M, 10.2k, 950."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            scaled = number / unit
            return f"{scaled:.2f}{name}" if scaled < 10 and name != "k" else f"{scaled:.1f}{name}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """2d03h, 3h12m, 3m12s, 12s."""
    whole = round(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}d{hours:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{left:02d}s" if minutes else f"{left}s"
