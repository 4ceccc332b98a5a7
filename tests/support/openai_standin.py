"""A stand-in for OpenAI's Responses and Chat Completions APIs (streamed), and for whatever resembles the latter."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from tests.support.model_replies import Answer, Call, Fail, Say, Think, Tokens, pieces
from tests.support.model_standin import Seen, StandIn, require

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class OpenAiStandIn(StandIn):
    """Serves ``/v1/responses`` and ``/v1/chat/completions``. Encrypts what it thinks, and takes back only what it encrypted.

    Roles have to alternate, as local models' templates want it."""

    path = "/v1"
    tried_at = "/v1/models"

    def has_key(self, seen: Seen) -> bool:
        return seen.headers.get("authorization") == f"Bearer {self.key}"

    # Requests

    def check(self, seen: Seen) -> None:
        body = seen.body
        require(isinstance(body.get("model"), str) and body.get("stream") is True, "model, stream")
        if seen.path == "/v1/responses":
            self._check_tools(body.get("tools", []))
            require(isinstance(body.get("max_output_tokens"), int), "max_output_tokens")
            require(body.get("store") is False, "store")
            self._check_items(body["input"])
        else:
            require(seen.path == "/v1/chat/completions", f"path {seen.path}")
            require(("max_tokens" in body) != ("max_completion_tokens" in body), "max_tokens")
            require(body.get("stream_options") == {"include_usage": True}, "stream_options")
            self._check_tools([tool["function"] for tool in body.get("tools", [])])
            self._check_messages(body["messages"])

    def _check_tools(self, tools: list[dict[str, Any]]) -> None:
        names = [tool["name"] for tool in tools]
        require(len(set(names)) == len(names) and all(map(_NAME.fullmatch, names)), f"names of tools: {names}")
        require(all(tool["parameters"].get("type") == "object" for tool in tools), "parameters")

    def _check_messages(self, messages: list[dict[str, Any]]) -> None:
        if messages[0]["role"] in ("system", "developer"):
            require(messages[0]["content"].strip(), "empty instructions")
            messages = messages[1:]
        turns = "".join({"user": "u", "assistant": "a", "tool": "t"}[message["role"]] for message in messages)
        require(re.fullmatch(r"u(at*u?)*", turns) and turns[-1] != "a", f"order of roles: {turns}")
        require("uu" not in turns, f"two user turns: {turns}")
        open_calls: list[str] = []
        seen_calls: set[str] = set()
        for message in messages:
            if message["role"] == "tool":
                require(open_calls and message["tool_call_id"] == open_calls.pop(0), "a tool's answer out of place")
                require(isinstance(message["content"], str) and message["content"], "a tool's answer is empty")
                continue
            require(not open_calls, f"tool calls without an answer right after: {open_calls}")
            require((message.get("content") or "").strip() or message.get("tool_calls"), f"empty message {message}")
            for call in message.get("tool_calls") or []:
                require(call["type"] == "function", "type of a call")
                self._check_call(call["id"], call["function"]["name"], call["function"]["arguments"], seen_calls)
                open_calls.append(call["id"])
        require(not open_calls, f"calls are open: {open_calls}")

    def _check_items(self, items: list[dict[str, Any]]) -> None:
        open_calls: list[str] = []
        seen_calls: set[str] = set()
        before = ""
        for item in items:
            kind = item.get("type") or "message"
            if kind == "function_call_output":
                require(open_calls and item["call_id"] == open_calls.pop(0), "an output out of place")
                require(isinstance(item["output"], str) and item["output"], "an output is empty")
            elif kind == "function_call":
                self._check_call(item["call_id"], item["name"], item["arguments"], seen_calls)
                open_calls.append(item["call_id"])
            elif kind == "reasoning":
                text = "".join(part["text"] for part in item["summary"])
                require(item["encrypted_content"] == self.encrypted(text), "reasoning that was not encrypted here")
            elif kind == "message":
                require(not open_calls, f"calls without an answer right after: {open_calls}")
                require(item["role"] in ("user", "assistant"), f"role {item['role']}")
                kind = item["role"]
                require(not (kind == before == "user"), "two user turns")
            else:
                require(False, f"item {kind}")
            require(
                not (before == "reasoning" and kind in ("user", "function_call_output")), "reasoning led to nothing"
            )
            before = kind
        require(not open_calls, f"calls are open: {open_calls}")
        require(before in ("user", "function_call_output"), f"the last item is {before}")

    def _check_call(self, id_: str, name: str, arguments: str, seen_calls: set[str]) -> None:
        require(_NAME.fullmatch(id_) and id_ not in seen_calls, f"id of a call: {id_}")
        require(_NAME.fullmatch(name), f"name of a call: {name}")
        require(isinstance(json.loads(arguments), dict), f"arguments: {arguments}")
        seen_calls.add(id_)

    def encrypted(self, text: str) -> str:
        return hashlib.sha256(self.key.encode() + text.encode()).hexdigest()

    # Answers

    def events(self, answer: Answer, seen: Seen) -> Iterator[bytes]:
        if seen.path == "/v1/responses":
            for number, body in enumerate(self._responses(answer, seen)):
                yield _event({**body, "sequence_number": number}, name=body["type"])
        else:
            yield from self._chat(answer, seen)

    def _chat(self, answer: Answer, seen: Seen) -> Iterator[bytes]:
        frame = {
            "id": self.new_id("chatcmpl-"), "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": seen.body["model"],
        }  # fmt: skip

        def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
            return _event({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

        yield chunk({"role": "assistant", "content": ""})
        calls = 0
        for part in answer.parts:
            match part:
                case Say(text):
                    for piece in pieces(text, answer.piece):
                        yield chunk({"content": piece})
                case Think(text):
                    for piece in pieces(text, answer.piece):
                        yield chunk(self.reasoning_delta(piece))
                case Call(name, arguments, id_):
                    first = {"id": id_ or self.new_id("call_"), "type": "function"}
                    yield chunk(
                        {"tool_calls": [{"index": calls, **first, "function": {"name": name, "arguments": ""}}]}
                    )
                    for piece in pieces(_text(arguments), answer.piece):
                        yield chunk({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]})
                    calls += 1
        if answer.fails is not None:
            yield self.failure_event(answer.fails)
            return
        auto = "tool_calls" if calls else "stop"
        yield chunk({}, {"length": "length", "refused": "content_filter", "auto": auto}[answer.finish])
        if answer.tokens is not None:
            yield _event({**frame, "choices": [], "usage": _chat_usage(answer.tokens)})
        yield b"data: [DONE]\n\n"

    def reasoning_delta(self, piece: str) -> dict[str, Any]:
        """Which no standard names."""
        return {"reasoning_content": piece}

    def _responses(self, answer: Answer, seen: Seen) -> Iterator[dict[str, Any]]:
        response: dict[str, Any] = {
            "id": self.new_id("resp_"), "object": "response", "created_at": 1_700_000_000, "model": seen.body["model"],
            "status": "in_progress", "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "error": None, "incomplete_details": None, "usage": None,
        }  # fmt: skip
        yield {"type": "response.created", "response": response}
        yield {"type": "response.in_progress", "response": response}
        output: list[dict[str, Any]] = []
        for index, part in enumerate(answer.parts):
            item, events = self._item(part, answer.piece)
            for event in events:
                yield {**event, "output_index": index}
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
            output.append(item)
        ended = {**response, "status": "completed", "output": output, "usage": _responses_usage(answer.tokens)}
        if answer.fails is not None:
            error = {"code": answer.fails.code or answer.fails.type, "message": answer.fails.message}
            yield {"type": "response.failed", "response": {**ended, "status": "failed", "error": error}}
        elif answer.finish == "auto":
            yield {"type": "response.completed", "response": ended}
        else:
            reason = {"length": "max_output_tokens", "refused": "content_filter"}[answer.finish]
            incomplete = {**ended, "status": "incomplete", "incomplete_details": {"reason": reason}}
            yield {"type": "response.incomplete", "response": incomplete}

    def _item(self, part: Say | Think | Call, size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The whole item, and the events before its last."""
        match part:
            case Say(text):
                id_ = self.new_id("msg_")
                content = {"type": "output_text", "text": text, "annotations": []}
                whole = {"id": id_, "type": "message", "role": "assistant", "status": "completed", "content": [content]}
                at = {"item_id": id_, "content_index": 0}
                events = [
                    {"type": "response.output_item.added", "item": {**whole, "status": "in_progress", "content": []}}
                ]
                events += [{"type": "response.content_part.added", **at, "part": {**content, "text": ""}}]
                events += [
                    {"type": "response.output_text.delta", **at, "delta": t, "logprobs": []} for t in pieces(text, size)
                ]
                events += [{"type": "response.output_text.done", **at, "text": text, "logprobs": []}]
                events += [{"type": "response.content_part.done", **at, "part": content}]
            case Think(text):
                id_ = self.new_id("rs_")
                summary = {"type": "summary_text", "text": text}
                whole = {
                    "id": id_,
                    "type": "reasoning",
                    "summary": [summary],
                    "encrypted_content": self.encrypted(text),
                }
                at = {"item_id": id_, "summary_index": 0}
                events = [{"type": "response.output_item.added", "item": {**whole, "summary": []}}]
                events += [{"type": "response.reasoning_summary_part.added", **at, "part": {**summary, "text": ""}}]
                events += [
                    {"type": "response.reasoning_summary_text.delta", **at, "delta": t} for t in pieces(text, size)
                ]
                events += [{"type": "response.reasoning_summary_text.done", **at, "text": text}]
                events += [{"type": "response.reasoning_summary_part.done", **at, "part": summary}]
            case Call(name, arguments, call_id):
                id_, given = self.new_id("fc_"), _text(arguments)
                call_id = call_id or self.new_id("call_")
                whole = {"id": id_, "type": "function_call", "call_id": call_id, "name": name, "arguments": given}
                whole["status"] = "completed"
                start = {**whole, "arguments": "", "status": "in_progress"}
                events = [{"type": "response.output_item.added", "item": start}]
                events += [
                    {"type": "response.function_call_arguments.delta", "item_id": id_, "delta": t}
                    for t in pieces(given, size)
                ]
                done = {
                    "type": "response.function_call_arguments.done",
                    "item_id": id_,
                    "name": name,
                    "arguments": given,
                }
                events += [done]
        return whole, events

    def failure_event(self, fail: Fail) -> bytes:
        return _event(self.failure_body(fail))

    def failure_body(self, fail: Fail) -> dict[str, Any]:
        return {"error": {"type": fail.type, "message": fail.message, "code": fail.code, "param": None}}


class OpenRouterStandIn(OpenAiStandIn):
    """As OpenRouter sends reasoning, in chat completions. Its models are listed to everybody, so keys are tried elsewhere."""

    tried_at = "/v1/key"

    def reasoning_delta(self, piece: str) -> dict[str, Any]:
        details = {
            "type": "reasoning.text",
            "text": piece,
            "signature": None,
            "format": "unknown",
            "index": 0,
            "id": None,
        }
        return {"reasoning": piece, "reasoning_details": [details]}


def _text(arguments: dict[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _event(body: dict[str, Any], *, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def _chat_usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read},
    }


def _responses_usage(tokens: Tokens | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    return {
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
