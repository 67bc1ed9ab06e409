"""The tools behind the API: replicas of their own, away from the model and from who speaks to the world; and the same
tools for other programs, over MCP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.dialogue import RunTool
from serving.protocol import Function
from webtochat import __version__, artifact, storage
from webtochat.inference.actors import ModelPath
from webtochat.recipe import Recipe
from webtochat.recipe_tools import Tools
from webtochat.tools import tool
from webtochat.tools.tool import ToolResult
from webtochat.tools.toolbox import toolbox

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server


class ToolServer:
    """One replica: the recipe's tools, over this node's copy of the index."""

    def __init__(self, section: Tools, index: ModelPath | None, threads: int):
        self._section = section
        self._tools = toolbox(section, index and index.local())
        self._pool = ThreadPoolExecutor(threads, "tools")

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, tool.call, self._tools, name, arguments, self._section)


def offered(chosen: Recipe) -> tuple[Tools, ModelPath | None, list[Function]]:
    """The recipe's tools as they can be served, the index that they search, and what they are. Those that need an index
    are left out where there is none. Raises UserError where another cannot work."""
    found = artifact.find(storage.join(chosen.workspace, chosen.name, "index"))
    section = chosen.tools if chosen.serve.tools else chosen.tools.model_copy(update={"names": []})
    if found is None:
        works = {"python": True, "web_search": section.web.engine != "index", "open_page": section.web.live}
        section = section.model_copy(update={"names": [name for name in section.names if works[name]]})
    made = toolbox(section, found and found.local())
    functions = [Function(name=each.name, description=each.description, parameters=each.parameters) for each in made]
    return section, found and ModelPath.of(found)._replace(folder=""), functions


def mcp_server(tools: Sequence[Function], run_tool: RunTool) -> Server[Any]:
    # Costs a second to import: only who is asked pays it.
    import mcp_types as types
    from mcp.server.lowlevel import Server

    known = [
        types.Tool(name=each.name, description=each.description, input_schema=each.parameters or {}) for each in tools
    ]

    async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=known)

    async def call_tool(_: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        result = await run_tool(asked.name, asked.arguments or {})
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=result.text)], is_error=result.error is not None,
            structured_content={"sources": [{"title": title, "url": url} for title, url, _ in result.sources]},
        )  # fmt: skip

    return Server("webtochat", version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


class McpResponse(Response):
    """Answers one request of streamable HTTP, without sessions: any replica can answer the next."""

    def __init__(self, server: Server[Any]):
        super().__init__()
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        manager = StreamableHTTPSessionManager(self._server, json_response=True, stateless=True)
        async with manager.run():
            await manager.handle_request(scope, receive, send)
