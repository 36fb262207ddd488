"""The names that claude and its stand-in share with the worker. It imports nothing, since each stand-in loads it."""

# The name of the run's only MCP server; claude then names its tools `mcp__trigger__…`.
SERVER_NAME = "trigger"
TOOL_PREFIX = f"mcp__{SERVER_NAME}__"
# The key in `_meta` of a request to the MCP server by which claude says which call of the model the request makes.
CALL_KEY = "claudecode/toolUseId"
# Claude's word in a result for the end at a tool call that waits for a person.
DEFERRED = "tool_deferred"
