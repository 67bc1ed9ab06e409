"""What an evaluation found: as a table of answers, as metrics, as lines for the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from webtochat.evals import refusals
from webtochat.evals.questions import Question, Verdict


@dataclass(frozen=True)
class Answered:
    """What one model answered, told of tools or not."""

    model: str
    tools: bool
    questions: list[Question]
    verdicts: list[Verdict]
    conversations: list[str]
    """Each as text, markers, calls and results included."""


def answers(answered: Sequence[Answered]) -> pa.Table:
    """A row for each reply."""
    told = [
        {
            "model": each.model, "tools": each.tools, "kind": question.kind, "question": question.question,
            "reply": verdict.reply, "answers": question.answers, "stated": question.stated,
            "correct": verdict.correct, "format_kept": verdict.format_kept, "refused": refusals.refused(verdict),
            "conversation": conversation,
        }
        for each in answered
        for question, verdict, conversation in zip(each.questions, each.verdicts, each.conversations, strict=True)
    ]  # fmt: skip
    schema = pa.schema([
        ("model", pa.string()), ("tools", pa.bool_()), ("kind", pa.string()), ("question", pa.string()),
        ("reply", pa.string()), ("answers", pa.list_(pa.string())), ("stated", pa.int64()), ("correct", pa.bool_()),
        ("format_kept", pa.bool_()), ("refused", pa.bool_()), ("conversation", pa.string()),
    ])  # fmt: skip
    return pa.Table.from_pylist(told, schema)


def metrics(result: dict[str, Any]) -> dict[str, float]:
    held_out = result["bits_per_byte"]
    found = {f"bits_per_byte/{key}": held_out[key] for key in ("start", "xz") if key in held_out}
    for name, told in (held_out["models"] | held_out.get("by_source", {})).items():
        found |= {f"bits_per_byte/{name}/{source}": value for source, value in told.items()}
    for name, told in result["questions"].items():
        found |= {f"accuracy/{name}/{kind}": each["rate"] for kind, each in told["accuracy"].items()}
        found |= {
            f"accuracy/{name}/{kind}/stated_{stated}": each["rate"]
            for kind, by_stated in told["by_stated"].items() for stated, each in by_stated.items()
        }  # fmt: skip
        found[f"format/{name}"] = told["format"]["rate"]
    for how, told in result["tools"].items():
        found |= {f"tools/{how}/{kind}": each["rate"] for kind, each in told["accuracy"].items()}
        found[f"tools/{how}/format"] = told["format"]["rate"]
    for name, told in result["knowledge"].items():
        for measure, by_state in told.items():
            found |= {f"{measure}/{name}/{state}": each["rate"] for state, each in by_state.items()}
    for name, told in result["tasks"].items():
        found[f"core/{name}"] = told["core"]
        found |= {f"task/{name}/{task}": each["rate"] for task, each in told["by_task"].items()}
    return found


def task_lines(by_model: dict[str, Any]) -> list[str]:
    """A line for each task, with 95 % intervals, and one for CORE."""
    if not by_model:
        return []
    width = max(map(len, by_model["base"]["by_task"]))
    lines = []
    for task, on_base in by_model["base"]["by_task"].items():
        rates = []
        for name, told in by_model.items():
            rate, low, high = (100 * told["by_task"][task][key] for key in ("rate", "low", "high"))
            rates.append(f"{name} {rate:.1f} % ({low:.1f} to {high:.1f})")
        chance = 100 * on_base["chance"]
        lines.append(f"{task:{width}}  {', '.join(rates)}; chance {chance:.0f} %, {on_base['of']:,} rows")
    cores = ", ".join(f"{name} {told['core']:.4f}" for name, told in by_model.items())
    return [*lines, f"{'core':{width}}  {cores}"]


def summary(result: dict[str, Any]) -> str:
    held_out = result["bits_per_byte"]
    bar = f" (xz {held_out['xz']:.2f}, 5-gram {held_out['5gram']:.2f})" if "xz" in held_out else ""
    parts = [f"bits/byte {held_out['models']['base']['total']:.2f}{bar}"] if held_out["models"] else []
    parts += [f"core {result['tasks']['base']['core']:.3f}"] if result["tasks"] else []
    accuracy = result["questions"]["sft"]["accuracy"] if result["questions"] else {}
    for kind in [each for each in ("fact", "arithmetic") if each in accuracy] or list(accuracy)[:1]:
        told = accuracy[kind]
        parts.append(f"{kind}s {100 * told['rate']:.0f} % (chance {100 * told['chance']:.0f} %)")
    if result["tools"]:
        before, after = (result["tools"][how]["accuracy"] for how in ("without", "with"))
        shown = [kind for kind in ("seen_once", "sums") if kind in after] or list(after)[:1]
        rates = [f"{kind} {100 * before[kind]['rate']:.0f} → {100 * after[kind]['rate']:.0f} %" for kind in shown]
        parts.append(f"with tools {', '.join(rates)}")
    if result["knowledge"]:
        parts.append(refusals.summary(result["knowledge"]))
    return "; ".join(parts).replace("arithmetics", "sums").replace("_", " ")


def tool_lines(by_tools: dict[str, Any]) -> list[str]:
    """A line for each kind of question that was asked without tools and with them, with 95 % intervals, and one for the
    form of what was written."""
    if not by_tools:
        return []
    kinds = {
        kind: {how: told["accuracy"][kind] for how, told in by_tools.items()} for kind in by_tools["with"]["accuracy"]
    } | {"format": {how: told["format"] for how, told in by_tools.items()}}
    width = max(map(len, kinds))
    return [
        f"{kind.replace('_', ' '):{width}}  "
        + ", ".join(
            f"{how} tools {100 * each['rate']:.1f} % ({100 * each['low']:.1f} to {100 * each['high']:.1f})"
            for how, each in rates.items()
        )
        + f", {rates['with']['of']:,} questions"
        for kind, rates in kinds.items()
    ]


def gain(result: dict[str, Any]) -> str:
    if not result["questions"]:
        return ""
    before, after = (result["questions"][name]["accuracy"] for name in ("base", "sft"))
    kind = "fact" if "fact" in after else next(iter(after))
    gained = after[kind]["rate"] - before[kind]["rate"]
    return f"{gained:+.2f} {kind}s, format {100 * result['questions']['sft']['format']['rate']:.1f} %"
