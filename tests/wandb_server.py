"""A stand-in for W&B's server on this machine: answers what its SDK asks, and keeps what it sends.

No server can be had from the package registries under a licence that fits. This one knows runs by their id, appends the
rows of their histories as W&B does, and rewinds a run if it `can_rewind`.
"""

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

KEY = "0123456789" * 4


@dataclass
class Run:
    """What has come of a run."""

    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, Any] = field(default_factory=dict)
    """The last arguments of UpsertBucket that had a value."""
    exit_codes: list[int] = field(default_factory=list)


class Server:
    """Serves while it is entered."""

    def __init__(self, *, can_rewind: bool = False) -> None:
        self.can_rewind = can_rewind
        self.runs: dict[str, Run] = {}
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.files: list[str] = []
        self.views: list[dict[str, Any]] = []
        """Workspaces and reports, as they were sent."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                answer = server.answer(self.path, json.loads(body or b"{}"))
                self.reply(json.dumps(answer).encode())

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                server.files.append(self.path)
                self.reply(b"")

            def do_GET(self) -> None:
                self.reply(b"{}")

            def reply(self, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the server says to a POST."""
        if path.endswith("/file_stream"):
            return self._file_stream(path.split("/")[-2], body)
        if path != "/graphql":
            return {}
        name = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
        operation = name[1] if name else ""
        variables = body.get("variables") or {}
        self.operations.append((operation, variables))
        return getattr(self, f"_{operation}", lambda _: {"data": {}})(variables)  # type: ignore[no-any-return]

    def _file_stream(self, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[run_id]
        history = body.get("files", {}).get("wandb-history.jsonl")
        if history:
            rows = [json.loads(line) for line in history["content"]]
            run.history[history["offset"] :] = rows
        if body.get("complete"):
            run.exit_codes.append(body["exitcode"])
        return {"exitcode": None, "limits": {}}

    def _bucket(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        project = {"name": "layerskip", "entity": {"name": "tester"}}
        return {
            "id": f"storage-{run_id}", "name": run_id, "displayName": run_id, "project": project,
            "historyLineCount": len(run.history), "logLineCount": 0, "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(run.history[-1])] if run.history else []),
            "summaryMetrics": json.dumps(run.history[-1] if run.history else {}), "eventsTail": "[]",
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "tags": [], "wandbConfig": '{"t": 1}', "sweepName": None,
        }  # fmt: skip

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run_id = variables["name"]
        inserted = run_id not in self.runs
        run = self.runs.setdefault(run_id, Run())
        run.sent |= {key: value for key, value in variables.items() if value not in (None, "", [])}
        if variables.get("config"):
            run.config |= {key: item["value"] for key, item in json.loads(variables["config"]).items()}
        return {"data": {"upsertBucket": {"bucket": self._bucket(run_id), "inserted": inserted}}}

    def _RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        bucket = self._bucket(variables["name"]) if variables["name"] in self.runs else None
        model = {"id": "project", "name": "layerskip", "entity": {"id": "entity", "name": "tester"}, "bucket": bucket}
        return {"data": {"model": model}}

    def _RewindRun(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if not self.can_rewind:
            return {"errors": [{"message": "rewind is not enabled here"}]}
        run_id = variables["runName"]
        run = self.runs[run_id]
        run.history = [row for row in run.history if row["_step"] <= variables["metricValue"]]
        return {"data": {"rewindRun": {"rewoundRun": self._bucket(run_id)}}}

    def _ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"data": {"project": {"artifact": None}}}

    def _CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        """As if its files were there already, so that none is sent."""
        name = variables.get("input", variables)["artifactCollectionName"]
        sequence = {"id": name, "latestArtifact": None}
        return {
            "data": {"createArtifact": {"artifact": {"id": name, "state": "COMMITTED", "artifactSequence": sequence}}}
        }

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
        return {"data": {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}}

    def _GetDefaultEntity(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"data": {"viewer": {"id": "viewer", "entity": "tester"}}}

    def _ProjectInternalId(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"data": {"project": {"id": "project", "internalId": "7"}}}

    def _GetProjects(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        project = {
            "__typename": "Project", "id": "project", "name": "layerskip", "entityName": variables["entity"],
            "createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False, "user": None,
        }  # fmt: skip
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"data": {"models": {"pageInfo": page, "edges": [{"node": project}]}}}

    def _upsertView(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.views.append(variables)
        project = {"id": "project", "name": variables["projectName"], "entityName": variables["entityName"]}
        keys = ("name", "displayName", "description", "type", "spec")
        view = {"id": f"view-{len(self.views)}", "project": project, "updatedAt": "2026-01-01T00:00:00Z"}
        return {"data": {"upsertView": {"view": view | {key: variables[key] for key in keys}, "inserted": True}}}

    _UpsertView2 = _upsertView

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        viewer = {"id": "viewer", "entity": "tester", "username": "tester", "flags": "{}", "teams": {"edges": []}}
        return {"data": {"viewer": viewer}}
