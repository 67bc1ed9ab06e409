"""What stands in a recipe's file, with overrides applied, and what is wrong with it, in words."""

from __future__ import annotations

import difflib
import os
import re
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from webtochat.errors import UserError


class Section(BaseModel):
    """A part of a recipe. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


def read(path: str, overrides: list[str]) -> dict[str, Any]:
    """The sections as they are written. Raises UserError, one line."""
    if not os.path.isfile(path):
        raise UserError(f"no recipe at {path}")
    with open(path, encoding="utf-8") as source:
        try:
            tree = yaml.safe_load(source)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a recipe: its top level must be a mapping of sections")
    tree.setdefault("name", os.path.splitext(os.path.basename(path))[0])
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"{override!r} is not an override: write section.key=value")
        _set(tree, key.split("."), value, override)
    return tree


def _set(tree: dict[str, Any], keys: list[str], value: str, override: str) -> None:
    for key in keys[:-1]:
        child = tree.get(key)
        if child is None:
            child = tree[key] = {}
        elif not isinstance(child, dict):
            raise UserError(f"{override!r}: {key} is a value, not a section")
        tree = child
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: the value is not YAML") from error
    if isinstance(parsed, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", parsed):
        parsed = float(parsed)  # YAML 1.1 reads 3e-3 as text
    tree[keys[-1]] = parsed


def problem(error: Any, root: Any) -> str:
    """A validation error of the model `root` in one line; of an unknown key the nearest valid one."""
    location = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _keys(error["loc"][:-1], root), n=1, cutoff=0.5)
        return f"unknown key {location}" + (f"; did you mean {near[0]}?" if near else "")
    return f"{location}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _keys(location: tuple[Any, ...], root: Any) -> list[str]:
    """Valid keys of the section at a location."""
    section = root
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part) if hasattr(section, "model_fields") else None
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next((each for each in candidates if hasattr(each, "model_fields")), None)
        if section is None:
            return []
    return list(section.model_fields)
