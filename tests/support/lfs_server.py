"""A git-lfs server for ``http_server``: the batch API and basic downloads, with what a test wants to turn."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


def pointer(content: bytes) -> bytes:
    return POINTER.format(oid=hashlib.sha256(content).hexdigest(), size=len(content)).encode()


@dataclass
class LfsServer:
    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """By object id."""
    href: str | None = None
    """Where it says that objects are, in place of itself."""
    scheme: str = "http"
    headers: Mapping[str, str] | None = None
    """That it wants with a download."""
    downloads: list[str] = field(default_factory=list[str])

    def add(self, content: bytes) -> bytes:
        """The pointer to it."""
        self.objects[hashlib.sha256(content).hexdigest()] = content
        return pointer(content)

    def serve(self, request: BaseHTTPRequestHandler, body: bytes) -> bool:
        """Whether the request was one for it, and is answered."""
        if request.path.endswith("/info/lfs/objects/batch"):
            here = f"{self.scheme}://{request.headers['Host']}"
            answer = {
                "transfer": "basic",
                "objects": [self._describe(each, here) for each in json.loads(body)["objects"]],
            }
            _answer(request, 200, json.dumps(answer).encode(), {"Content-Type": "application/vnd.git-lfs+json"})
            return True
        if request.path.startswith("/lfs-objects/"):
            oid = request.path.rpartition("/")[2]
            self.downloads.append(oid)
            content = self.objects.get(oid)
            _answer(request, 404 if content is None else 200, content or b"")
            return True
        return False

    def _describe(self, wanted: Mapping[str, object], here: str) -> Mapping[str, object]:
        oid = str(wanted["oid"])
        if oid not in self.objects:
            return {**wanted, "error": {"code": 404, "message": "Object does not exist"}}
        return {
            **wanted,
            "actions": {"download": {"href": f"{self.href or here}/lfs-objects/{oid}", "header": self.headers or {}}},
        }


def _answer(
    request: BaseHTTPRequestHandler, status: int, content: bytes, headers: Mapping[str, str] | None = None
) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)
