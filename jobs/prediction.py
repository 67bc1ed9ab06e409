"""The loss of a larger model, told before it is trained, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

from trials import Entry
from webtochat import storage
from webtochat.errors import UserError
from webtochat.run import Run
from webtochat.train import drawing, scaling
from webtochat.train.scaling import Point, Prediction

Keep = Callable[[str, str], None]
"""(name, text): writes a file of the sweep's, here and in MLflow."""


def foretell(run: Run, sizes: list[Entry], target: Entry, keep: Keep) -> Prediction:
    """Fits the law and writes down what it says of the target, which must not have been trained yet: a prediction
    comes first, or it is none. Raises UserError otherwise, and for too few sizes."""
    points = [
        Point(label(each), each.flops, each.made.manifest.counts["validation_loss"])
        for each in sizes if each.made is not None
    ]  # fmt: skip
    try:
        made = scaling.predict(points, label(target), target.flops)
    except ValueError as error:
        raise UserError(f"{error}: sweep over at least {scaling.LEAST} that come to their end") from error
    path = storage.join(target.directory, "prediction.json")
    earlier = Prediction.model_validate_json(storage.read_bytes(path)) if storage.exists(path) else None
    if earlier is not None and (earlier.points, earlier.target.flops) == (points, target.flops):
        made = earlier
    elif target.made is not None or storage.files_below(storage.join(target.directory, "pretrain", "_scratch")):
        raise UserError(
            f"{target.trial.name} was trained before it was foretold by these sizes, and nobody foretells what has "
            "been: predict another size, or choose another name= or workspace="
        )
    else:
        keep(f"{target.trial.name}/prediction.json", made.model_dump_json(indent=1))
    law = made.law
    run.screen.say(
        f"  L(C) = {law.irreducible:.3f} + {law.scale:.3g} · C^-{law.exponent:.3f} through {len(points)} sizes, "
        f"{target.flops / max(each.flops for each in points):.1f} times the compute of the largest"
    )
    spread = f" ({made.between[0]:.4f} to {made.between[1]:.4f} with a size left out)" if made.between else ""
    run.screen.say(f"  {target.trial.name}: predicted loss {made.target.loss:.4f}{spread}")
    return made


def compare(run: Run, prediction: Prediction, target: Entry, keep: Keep) -> dict[str, float]:
    """Shows the prediction beside what was measured, and draws both. The figures, by name."""
    assert target.made is not None
    measured, predicted = target.made.manifest.counts["validation_loss"], prediction.target.loss
    percent = 100 * (predicted / measured - 1)
    run.screen.say(
        f"  {target.trial.name}: predicted {predicted:.4f}, measured {measured:.4f}: {percent:+.2f} %"
    )
    keep(f"{target.trial.name}/scaling.svg", drawing.law(prediction, measured))
    return {"predicted_loss": predicted, "measured_loss": measured, "prediction_error_percent": percent}


def label(entry: Entry) -> str:
    """The swept settings without their section: depth=4."""
    return ", ".join(override.partition(".")[2] for override in entry.trial.overrides)
