"""What is served by a recipe: which tools, how many engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving.app import replicas, taught
from serving.tools import offered
from tests.inference import tiny

from webtochat import recipe
from webtochat.errors import UserError
from webtochat.recipe import Recipe


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.workspace(tmp_path_factory.mktemp("offered"))


def chosen(path: Path, *overrides: str) -> Recipe:
    return recipe.load(str(path), list(overrides))


def test_what_needs_an_index_is_left_out_where_there_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section, index, functions = offered(chosen(path))
    assert (section.names, index, [each.name for each in functions]) == (["python"], None, ["python"])
    monkeypatch.setenv("SEARXNG_URL", "http://127.0.0.1:1")
    live = chosen(path, "tools.web.engine=searxng", "tools.web.live=true", "tools.names=[web_search, open_page]")
    assert [each.name for each in offered(live)[2]] == ["web_search", "open_page"]
    assert offered(chosen(path, "serve.tools=false"))[2] == []


def test_a_tool_that_cannot_work_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRAVE_API_KEY", raising=False)
    with pytest.raises(UserError, match="BRAVE_API_KEY is not set"):
        offered(chosen(path, "tools.web.engine=brave"))


def test_how_many_engines(path: Path) -> None:
    assert replicas(chosen(path, "cluster.engines=3").cluster) == {"num_replicas": 3}
    scaled = replicas(chosen(path, "cluster.engines=[0, 4]", "cluster.engine_requests=8").cluster)["autoscaling_config"]
    assert (scaled["min_replicas"], scaled["max_replicas"], scaled["target_ongoing_requests"]) == (0, 4, 8)
    for wrong in ("[3, 2]", "[0, 0]", "0"):
        with pytest.raises(UserError, match="engines"):
            chosen(path, f"cluster.engines={wrong}")


def test_whether_the_model_was_shown_tools(path: Path) -> None:
    assert not taught(chosen(path)) and not taught(chosen(path, "name=other"))
