"""Pictures of several training runs, as SVG: equal figures give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from webtochat.train.scaling import Law, Prediction

BEST, LAW, GIVEN, MEASURED = "#1769aa", "#1769aa", "#9aa5b1", "#c0392b"
NAMED = 12
"""Lines that are told by name; of more, the best ones."""


@dataclass(frozen=True)
class Curve:
    name: str
    points: list[tuple[float, float]]
    """(tokens, value), in order."""
    end: str = ""
    """`best`, `stopped`, or neither."""


def trials(curves: list[Curve], measured: str) -> str:
    """`measured` against tokens, a line for each trial; stopped ones end in a cross."""
    from matplotlib.ticker import EngFormatter

    curves = sorted((each for each in curves if each.points), key=lambda each: (each.end != "best", each.points[-1][1]))
    with _axes(4 + 0.17 * min(NAMED, len(curves))) as (figure, axes, image):
        shades = _shades(len(curves))
        for order, (curve, shade) in enumerate(zip(curves, shades, strict=True)):
            tokens, values = zip(*curve.points, strict=True)
            best = curve.end == "best"
            mark = {"best": " (best)", "stopped": " (stopped)"}.get(curve.end, "")
            axes.plot(
                tokens, values, color=BEST if best else shade, linewidth=2.2 if best else 1.2, zorder=3 if best else 2,
                marker="o", markersize=3 if best else 2,
                label=f"{values[-1]:.4f}  {curve.name}{mark}" if order < NAMED else None,
            )  # fmt: skip
            if curve.end == "stopped":
                axes.plot(tokens[-1], values[-1], color=shade, marker="x", markersize=7, markeredgewidth=1.6, zorder=4)
        axes.set_xlabel("tokens trained on")
        axes.set_ylabel(measured)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_xlim(left=0)
        axes.set_ylim(*_heights(curves))
        more = f": {NAMED} of {len(curves)}" if len(curves) > NAMED else ""
        figure.legend(
            loc="outside lower left", frameon=False, fontsize=8, ncols=1, alignment="left",
            title=f"at the end{more}", title_fontsize=8,
        )  # fmt: skip
    return image.getvalue()


def law(prediction: Prediction, measured: float) -> str:
    """The fitted law in loss and compute, both logarithmic; what it foretold, and what came."""
    points, told, target, between = prediction.points, prediction.law, prediction.target, prediction.between
    with _axes(4) as (_, axes, image):
        flops = np.geomspace(min(each.flops for each in points) / 1.3, target.flops * 1.3, 200)
        reach = max(each.flops for each in points)
        for part, style in ((flops <= reach, "-"), (flops >= reach, "--")):
            label = _formula(told) if style == "-" else None
            axes.plot(flops[part], told(flops[part]), style, color=LAW, linewidth=1.5, zorder=2, label=label)
        axes.plot(
            [each.flops for each in points], [each.loss for each in points], "o", color=GIVEN, markersize=6,
            markeredgecolor="black", markeredgewidth=0.6, zorder=3, label="fitted to",
        )  # fmt: skip
        if between is not None:
            axes.plot(
                [target.flops] * 2, between, color=LAW, marker="_", markersize=9, linewidth=1.2, zorder=4,
                label="predicted with one size left out",
            )  # fmt: skip
        axes.plot(
            target.flops, target.loss, "o", color=LAW, markersize=8, markerfacecolor="white", zorder=4,
            label=f"predicted {target.loss:.4f}",
        )  # fmt: skip
        off = 100 * (target.loss / measured - 1)
        axes.plot(
            target.flops, measured, "x", color=MEASURED, markersize=7, markeredgewidth=1.8, zorder=5,
            label=f"measured {measured:.4f} (predicted {off:+.2f} %)",
        )  # fmt: skip
        for each in [*points, target]:
            axes.annotate(each.name, (each.flops, each.loss), xytext=(7, 5), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _log_ticks(axes, [*(each.loss for each in points), target.loss, measured])
        axes.set_xlabel("training FLOPs")
        axes.set_ylabel("validation loss, nats per token")
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    return image.getvalue()


@contextmanager
def _axes(inches: float) -> Iterator[tuple[Any, Any, io.StringIO]]:
    """A figure so high, and its axes; what is drawn there stands in the buffer when the context ends."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    image = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "webtochat", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(6, inches), layout="constrained")
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes, image
        figure.savefig(image, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _shades(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.15 + 0.75 * number / max(1, count - 1)) for number in range(count)]


def _heights(curves: list[Curve]) -> tuple[float, float]:
    """From below the best value to above most lines' first: one that diverges must not flatten the others."""
    firsts = sorted(each.points[0][1] for each in curves)
    least = min(value for each in curves for _, value in each.points)
    most = firsts[int(0.75 * (len(firsts) - 1))]
    room = 0.06 * max(most - least, 1e-3)
    return least - room, most + room


def _formula(told: Law) -> str:
    scale, power = f"{told.scale:.2e}".split("e")
    return f"L = {told.irreducible:.2f} + {scale}·10$^{{{int(power)}}}$ · C$^{{-{told.exponent:.3f}}}$"


def _log_ticks(axes: Any, values: list[float]) -> None:
    """Round losses: a logarithmic axis of less than a decade has no ticks of its own."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    low, high = min(values) / 1.04, max(values) * 1.04
    axes.set_ylim(low, high)
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
