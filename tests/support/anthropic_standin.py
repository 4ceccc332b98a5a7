"""A stand-in for Anthropic's Messages API (streamed)."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from tests.support.model_replies import Answer, Call, Fail, Say, Think, Tokens, pieces
from tests.support.model_standin import Seen, StandIn, require

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_BLOCKS = {"user": {"text", "tool_result"}, "assistant": {"text", "tool_use", "thinking", "redacted_thinking"}}


class AnthropicStandIn(StandIn):
    """Signs what it thinks, and takes back only what it signed. Roles have to alternate, more strictly than the real one."""

    tried_at = "/v1/models?limit=1"

    def has_key(self, seen: Seen) -> bool:
        # The locked SDK sends the key as a bearer token, older ones in a header of its own.
        return self.key in (
            seen.headers.get("x-api-key"),
            seen.headers.get("authorization", "").removeprefix("Bearer "),
        )

    # Requests

    def check(self, seen: Seen) -> None:
        body = seen.body
        require(seen.path.partition("?")[0] == "/v1/messages", f"path {seen.path}")
        require("anthropic-version" in seen.headers, "anthropic-version is missing")
        known = {
            "model",
            "max_tokens",
            "messages",
            "system",
            "tools",
            "tool_choice",
            "stream",
            "thinking",
            "output_config",
        }
        require(not set(body) - known, f"unknown fields {set(body) - known}")
        require(isinstance(body.get("model"), str) and body.get("stream") is True, "model, stream")
        require(isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 0, "max_tokens")
        self._check_tools(body.get("tools", []))
        self._check_messages(body.get("messages"))
        require(json.dumps(body).count('"cache_control"') <= 4, "more than 4 cache_control")

    def _check_tools(self, tools: list[dict[str, Any]]) -> None:
        names = [tool["name"] for tool in tools]
        require(len(set(names)) == len(names) and all(map(_NAME.fullmatch, names)), f"names of tools: {names}")
        require(all(tool["input_schema"].get("type") == "object" for tool in tools), "input_schema")

    def _check_messages(self, messages: Any) -> None:
        require(isinstance(messages, list) and messages, "messages")
        roles = [message["role"] for message in messages]
        require(roles == [("user", "assistant")[i % 2] for i in range(len(roles))], f"roles: {roles}")
        require(roles[-1] == "user", "the conversation must end with a user message")
        open_calls: list[str] = []
        seen_calls: set[str] = set()
        for message in messages:
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            require(content, "messages must have non-empty content")
            kinds = [block["type"] for block in content]
            require(set(kinds) <= _BLOCKS[message["role"]], f"{message['role']} may not send {kinds}")
            for block in content:
                self._check_block(block)
            answered = [block["tool_use_id"] for block in content if block["type"] == "tool_result"]
            require(answered == open_calls, f"tool_use ids without tool_result right after: {open_calls}, {answered}")
            require(kinds[: len(answered)] == ["tool_result"] * len(answered), "tool_result must come first")
            open_calls = [block["id"] for block in content if block["type"] == "tool_use"]
            require(not seen_calls & set(open_calls) and len(set(open_calls)) == len(open_calls), "tool_use ids repeat")
            seen_calls |= set(open_calls)
            require(kinds[-1] not in ("thinking", "redacted_thinking"), "thinking cannot be last")
        require(not open_calls, "calls are open")

    def _check_block(self, block: dict[str, Any]) -> None:
        match block["type"]:
            case "text":
                require(block["text"].strip(), "text content blocks must contain non-whitespace text")
            case "tool_use":
                require(_NAME.fullmatch(block["id"]) and _NAME.fullmatch(block["name"]), f"tool_use {block}")
                require(isinstance(block["input"], dict), "tool_use.input: Input should be a valid dictionary")
            case "tool_result":
                inner = block.get("content", "")
                inner = [{"type": "text", "text": inner}] if isinstance(inner, str) and inner else inner
                for item in inner:
                    self._check_block(item)
            case "thinking":
                require(
                    block["signature"] == self.signature(block["thinking"]), "Invalid `signature` in `thinking` block"
                )
            case "redacted_thinking":
                require(block["data"], "redacted_thinking without data")

    def signature(self, text: str) -> str:
        return hashlib.sha256(self.key.encode() + text.encode()).hexdigest()

    # Answers

    def events(self, answer: Answer, seen: Seen) -> Iterator[bytes]:
        tokens = answer.tokens
        message = {
            "id": self.new_id("msg_"), "type": "message", "role": "assistant", "model": seen.body["model"],
            "content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(tokens, output=1),
        }  # fmt: skip
        yield _event({"type": "message_start", "message": message})
        for index, part in enumerate(answer.parts):
            start, deltas = self._block(part, answer.piece)
            yield _event({"type": "content_block_start", "index": index, "content_block": start})
            yield _event({"type": "ping"})
            for delta in deltas:
                yield _event({"type": "content_block_delta", "index": index, "delta": delta})
            yield _event({"type": "content_block_stop", "index": index})
        if answer.fails is not None:
            yield self.failure_event(answer.fails)
            return
        calls = any(isinstance(part, Call) for part in answer.parts)
        reason = {"length": "max_tokens", "refused": "refusal", "auto": "tool_use" if calls else "end_turn"}[
            answer.finish
        ]
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield _event({"type": "message_delta", "delta": delta, "usage": _usage(tokens)})
        yield _event({"type": "message_stop"})

    def _block(self, part: Say | Think | Call, size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        match part:
            case Say(text):
                return {"type": "text", "text": ""}, [{"type": "text_delta", "text": t} for t in pieces(text, size)]
            case Think(_, redacted) if redacted is not None:
                return {"type": "redacted_thinking", "data": redacted}, []
            case Think(text):
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(text, size)]
                signature = {"type": "signature_delta", "signature": self.signature(text)}
                return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signature]
            case Call(name, arguments, id_):
                text = arguments if isinstance(arguments, str) else json.dumps(arguments)
                start = {"type": "tool_use", "id": id_ or self.new_id("toolu_"), "name": name, "input": {}}
                return start, [{"type": "input_json_delta", "partial_json": t} for t in ["", *pieces(text, size)]]

    def failure_event(self, fail: Fail) -> bytes:
        return _event(self.failure_body(fail))

    def failure_body(self, fail: Fail) -> dict[str, Any]:
        return {"type": "error", "error": {"type": fail.type, "message": fail.message}, "request_id": "req_1"}


def _event(body: dict[str, Any]) -> bytes:
    return f"event: {body['type']}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def _usage(tokens: Tokens | None, *, output: int | None = None) -> dict[str, int]:
    if tokens is None:
        return {"input_tokens": 0, "output_tokens": 0}
    return {
        "input_tokens": tokens.input - tokens.cache_read - tokens.cache_write,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation_input_tokens": tokens.cache_write,
        "output_tokens": tokens.output if output is None else output,
    }
