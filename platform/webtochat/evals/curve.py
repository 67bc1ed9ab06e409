"""Accuracy against the number of times stated, drawn."""

from __future__ import annotations

from typing import Any

SHADES = {"base": "#9aa5b1", "sft": "#1769aa", "knowledge": "#2e8b57", "dpo": "#7a5195", "rl": "#b8651b"}


def draw(by_model: dict[str, dict[str, Any]], path: str, kind: str = "fact") -> bool:
    """Writes an SVG of `by_stated[kind]` of each model with 95 % intervals and the line of chance. False, and no file,
    where there is nothing to draw. Equal figures give equal bytes."""
    curves = {name: told["by_stated"].get(kind, {}) for name, told in by_model.items()}
    if not any(curves.values()):
        return False
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "webtochat", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
        for name, curve in curves.items():
            stated = sorted(map(int, curve))
            points = [curve[str(each)] for each in stated]
            rates = [100 * point["rate"] for point in points]
            below = [100 * (point["rate"] - point["low"]) for point in points]
            above = [100 * (point["high"] - point["rate"]) for point in points]
            axes.errorbar(
                stated, rates, yerr=[below, above], marker="o", markersize=4, capsize=3, linewidth=1.5,
                color=SHADES.get(name), label=name,
            )  # fmt: skip
        last = next(curve for curve in reversed(list(curves.values())) if curve)
        chance = sum(point["chance"] * point["of"] for point in last.values()) / sum(p["of"] for p in last.values())
        axes.axhline(100 * chance, color="#c0392b", linestyle="--", linewidth=1, label=f"chance {100 * chance:.0f} %")
        axes.set_xscale("symlog", linthresh=1)
        ticks = sorted({int(each) for curve in curves.values() for each in curve})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(-2, 102)
        axes.set_xlabel("times the pages state the fact")
        axes.set_ylabel("right answers, % (95 % interval)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return True
