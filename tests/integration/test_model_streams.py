"""Models of providers over real HTTP: what streams, and what is sent back in the next request."""

import asyncio
import json
from contextlib import aclosing
from decimal import Decimal

import pytest

from shadow.agent.providers.making import ModelOptions
from shadow.core.conversation import (
    AssistantMessage,
    FinishReason,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolMessage,
    ToolResult,
    Usage,
    UserMessage,
)
from tests.support.model_replies import Answer, Call, Say, Think, Tokens
from tests.support.model_wires import (
    ANTHROPIC,
    CHAT,
    COMPATIBLE,
    OLLAMA,
    OPENROUTER,
    RESPONSES,
    WIRES,
    Wire,
    ask,
    request,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    return request.param


def results(message: AssistantMessage, *contents: str, is_error: bool = False) -> ToolMessage:
    return ToolMessage(
        results=tuple(
            ToolResult(call_id=call.id, name=call.name, content=content, is_error=is_error)
            for call, content in zip(message.calls, contents, strict=True)
        )
    )


EVERYTHING = Answer(
    [
        Think("First I look at the file, then at the directory."),
        Say("I will look. ✓ \U0001f600"),
        Call("read_file", {"path": "src/ünï/ä.py"}),
        Call("list_dir", {}),
    ]
)


async def test_pieces_come_as_they_arrive_and_add_up_to_the_answer(wire: Wire):
    async with wire.serve([EVERYTHING]) as server:
        heard = await ask(wire.connect(server), request("Go"))
    answer = heard.message
    assert answer.text == "I will look. ✓ \U0001f600"
    assert [(call.name, json.loads(call.arguments)) for call in answer.calls] == [
        ("read_file", {"path": "src/ünï/ä.py"}),
        ("list_dir", {}),
    ]
    assert "".join(p.text for p in answer.parts if isinstance(p, Reasoning)) == EVERYTHING.parts[0].text
    assert answer.finish is FinishReason.TOOL_CALLS
    texts = [d.text for d in heard.deltas if isinstance(d, TextDelta)]
    assert len(texts) > 2
    assert "".join(texts) == answer.text
    assert "".join(d.text for d in heard.deltas if isinstance(d, ReasoningDelta)) == EVERYTHING.parts[0].text
    for call in answer.calls:
        given = [d.arguments for d in heard.deltas if isinstance(d, ToolCallDelta) and d.call_id == call.id]
        assert "".join(given) == call.arguments
        assert given


async def test_each_byte_by_itself_makes_the_same_answer(wire: Wire):
    async with wire.serve([EVERYTHING, Answer(EVERYTHING.parts, one_byte_chunks=True)]) as server:
        model = wire.connect(server)
        whole, bytewise = await ask(model, request("Go")), await ask(model, request("Go"))
    assert whole.message.text == bytewise.message.text
    assert [c.arguments for c in whole.message.calls] == [c.arguments for c in bytewise.message.calls]


async def test_a_conversation_with_parallel_calls_is_taken_back_by_its_provider(wire: Wire):
    async with wire.serve([EVERYTHING, Answer([Call("read_file", {"path": "b"})]), Answer([Say("Done.")])]) as server:
        model = wire.connect(server)
        first = (await ask(model, request("Go"))).message
        so_far = (UserMessage(text="Go"), first, results(first, "line 1", "a\nb"))
        second = (await ask(model, request(*so_far))).message
        so_far = (*so_far, second, results(second, "no such file", is_error=True))
        last = (await ask(model, request(*so_far))).message
        assert last.text == "Done."
        assert last.finish is FinishReason.STOP
        sent = json.dumps(server.requests[-1].body)
        assert "line 1" in sent
        assert "no such file" in sent
        assert len({seen.connection for seen in server.requests}) == 1, "the connection was not kept"


async def test_an_answer_survives_json_and_is_sent_as_it_was(wire: Wire):
    from shadow.core.events import ModelAnswered
    from shadow.db.codec import decode_event, encode_event

    async with wire.serve([EVERYTHING, Answer([Say("ok")]), Answer([Say("ok")])]) as server:
        model = wire.connect(server)
        first = (await ask(model, request("Go"))).message
        event = decode_event("model_answered", encode_event(ModelAnswered(message=first, took_ms=1.0)))
        assert isinstance(event, ModelAnswered)
        for message in (first, event.message):
            await ask(model, request("Go", message, results(message, "x", "y")))
        assert server.requests[1].body == server.requests[2].body


async def test_reasoning_goes_back_to_its_maker_with_its_signature():
    answer = Answer([Think("secret thought"), Think("", redacted="abc"), Call("list_dir")])
    async with ANTHROPIC.serve([answer, Answer([Say("ok")])]) as server:
        model = ANTHROPIC.connect(server)
        first = (await ask(model, request("Go"))).message
        await ask(model, request("Go", first, results(first, "x")))
        kinds = [block["type"] for block in server.requests[1].body["messages"][1]["content"]]
    assert kinds == ["thinking", "redacted_thinking", "tool_use"]


async def test_openrouters_reasoning_goes_back_in_its_details():
    async with OPENROUTER.serve([Answer([Think("hm, so"), Call("list_dir")]), Answer([Say("ok")])]) as server:
        model = OPENROUTER.connect(server)
        first = (await ask(model, request("Go"))).message
        await ask(model, request("Go", first, results(first, "x")))
        (sent,) = [message for message in server.requests[1].body["messages"] if message["role"] == "assistant"]
    assert "".join(detail["text"] for detail in sent["reasoning_details"]) == "hm, so"


async def test_encrypted_reasoning_goes_back_to_its_maker():
    async with RESPONSES.serve([Answer([Think("hm"), Call("list_dir")]), Answer([Say("ok")])]) as server:
        model = RESPONSES.connect(server)
        first = (await ask(model, request("Go"))).message
        await ask(model, request("Go", first, results(first, "x")))
        kinds = [item.get("type", "message") for item in server.requests[1].body["input"]]
        assert "reasoning.encrypted_content" in server.requests[0].body["include"]
    assert kinds == ["message", "reasoning", "function_call", "function_call_output"]


@pytest.mark.parametrize("second", [ANTHROPIC, RESPONSES, COMPATIBLE], ids=str)
async def test_another_model_gets_the_conversation_without_the_reasoning(wire: Wire, second: Wire):
    async with wire.serve([EVERYTHING]) as server, second.serve([Answer([Say("ok")])]) as other:
        first = (await ask(wire.connect(server), request("Go"))).message
        model = second.connect(other, model=f"{second.model}-2")
        heard = await ask(model, request("Go", first, results(first, "line 1", "b"), "And now?"))
        assert heard.message.text == "ok"
        sent = json.dumps(other.requests[0].body)
        assert "I will look" in sent
        assert "First I look" not in sent


async def test_what_providers_refuse_is_made_right_in_the_request_alone(wire: Wire):
    model_name = "x"
    messages = (
        AssistantMessage(parts=(Text(text="I begin."),), model=model_name),
        UserMessage(text=""),
        UserMessage(text="half \ud83d and whole \ud83d\ude00"),
        AssistantMessage(parts=(Text(text="  "), Reasoning(text="unsigned")), model=model_name),
        UserMessage(text="Your answer was empty."),
        AssistantMessage(
            parts=(
                Text(text=""),
                ToolCall(id="same", name="read_file", arguments='{"path": "a'),
                ToolCall(id="same", name="functions.read file", arguments="[1, NaN]"),
                ToolCall(id="weird id/with:signs" * 9, name="list_dir", arguments=""),
            ),
            model=model_name,
        ),
        ToolMessage(
            results=(
                ToolResult(call_id="weird id/with:signs" * 9, name="list_dir", content=""),
                ToolResult(call_id="same", name="read_file", content="\udcff\udcfe bytes", is_error=True),
                ToolResult(call_id="nobody", name="x", content="orphan"),
            )
        ),
        AssistantMessage(parts=(ToolCall(id="same", name="list_dir", arguments="{}"),), model=model_name),
        AssistantMessage(parts=(Text(text="done"),), model=model_name),
        ToolMessage(results=(ToolResult(call_id="late", name="x", content="too late"),)),
    )
    async with wire.serve([Answer([Say("fine")])]) as server:
        heard = await ask(wire.connect(server), request(*messages))
    assert heard.message.text == "fine"


async def test_tokens_count_the_cached_ones_among_the_input(wire: Wire):
    writes = 5 if wire in (ANTHROPIC, RESPONSES) else 0
    tokens = Tokens(input=1000, output=30, cache_read=800, cache_write=writes)
    async with wire.serve([Answer([Say("hi")], tokens=tokens)]) as server:
        heard = await ask(wire.connect(server), request("Go"))
    usage = heard.message.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (1000, 30, 800)
    assert usage.cache_write_tokens == writes


async def test_tokens_that_nobody_counted_are_estimated_and_never_zero():
    async with COMPATIBLE.serve([Answer([Say("word " * 100)], tokens=None)]) as server:
        heard = await ask(COMPATIBLE.connect(server), request("Go" * 300))
    usage = heard.message.usage
    assert usage != Usage()
    assert usage.input_tokens > 150
    assert usage.output_tokens > 100


async def test_an_answer_at_its_limit_says_so(wire: Wire):
    async with wire.serve([Answer([Say("and then")], finish="length")]) as server:
        heard = await ask(wire.connect(server), request("Go"))
    assert heard.message.finish is FinishReason.LENGTH


async def test_a_refusal_to_answer_says_so(wire: Wire):
    async with wire.serve([Answer([Say("I cannot")], finish="refused")]) as server:
        heard = await ask(wire.connect(server), request("Go"))
    assert heard.message.finish is FinishReason.REFUSED


async def test_arguments_that_are_no_json_come_as_they_were_written(wire: Wire):
    async with wire.serve([Answer([Call("read_file", '{"path": "a')]), Answer([Say("ok")])]) as server:
        model = wire.connect(server)
        first = (await ask(model, request("Go"))).message
        assert first.calls[0].arguments == '{"path": "a'
        await ask(model, request("Go", first, results(first, "not JSON", is_error=True)))
        assert "invalid_arguments" in json.dumps(server.requests[1].body)


async def test_closing_the_iterator_ends_the_request(wire: Wire):
    async with wire.serve([Answer([Say("word " * 50)], stall_after_events=9)]) as server:
        model = wire.connect(server)
        async with aclosing(model.stream(request("Go"))) as pieces:  # type: ignore[type-var]
            async for _ in pieces:
                break
        await asyncio.wait_for(server.requests[0].left.wait(), 10)
        await model.aclose()


async def test_cancelling_ends_the_request(wire: Wire):
    async with wire.serve([Answer([Say("word " * 50)], stall_after_events=9)]) as server:
        model = wire.connect(server)
        task = asyncio.create_task(ask(model, request("Go")))
        async with asyncio.timeout(10):
            while not server.requests:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.requests[0].left.wait(), 10)


async def test_a_slow_answer_is_waited_for_as_long_as_something_comes():
    async with CHAT.serve([Answer([Say("a" * 21)], pause_s=0.15)]) as server:
        heard = await ask(CHAT.connect(server, options=ModelOptions(silence_s=0.6)), request("Go"))
    assert heard.message.text == "a" * 21


async def test_instructions_tools_and_the_last_messages_are_marked_for_anthropics_cache():
    async with ANTHROPIC.serve([Answer([Say("ok")])]) as server:
        await ask(ANTHROPIC.connect(server), request("Go"))
        body = server.requests[0].body
    assert body["system"][-1]["cache_control"]["type"] == "ephemeral"
    assert body["tools"][-1]["cache_control"]["type"] == "ephemeral"
    assert body["messages"][-1]["content"][-1]["cache_control"]["type"] == "ephemeral"


async def test_the_rest_of_a_request_is_what_was_asked_for(wire: Wire):
    async with wire.serve([Answer([Say("ok")])]) as server:
        await ask(wire.connect(server), request("Go"))
        body = server.requests[0].body
    assert body["model"] == wire.model.partition(":")[2]
    limits = [body.get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
    assert [limit for limit in limits if limit is not None] == [1000]
    assert "Be brief." in json.dumps(body)
    names = [tool.get("name") or tool["function"]["name"] for tool in body["tools"]]
    assert names == ["read_file", "list_dir"]


@pytest.mark.parametrize("asked", ["low", "high"])
async def test_reasoning_is_asked_for_as_the_provider_wants_it(asked: str):
    options = ModelOptions(reasoning=asked)
    async with ANTHROPIC.serve([Answer([Say("ok")])]) as server:
        await ask(ANTHROPIC.connect(server, options=options), request("Go"))
        assert server.requests[0].body["thinking"]["type"] == "adaptive"
        assert server.requests[0].body["output_config"]["effort"] == asked
    async with RESPONSES.serve([Answer([Say("ok")])]) as server:
        await ask(RESPONSES.connect(server, options=options), request("Go"))
        assert server.requests[0].body["reasoning"]["effort"] == asked


async def test_facts_come_from_the_data_of_the_provider_and_unknown_prices_are_unknown():
    async with ANTHROPIC.serve([]) as server:
        model = ANTHROPIC.connect(server)
        assert (model.name, model.context_tokens, model.max_output_tokens) == (ANTHROPIC.model, 1_000_000, 32_000)
        assert model.price is not None
        assert (model.price.input, model.price.output, model.price.cache_read) == (5, 25, Decimal("0.5"))
    async with OLLAMA.serve([]) as server:
        model = OLLAMA.connect(server, options=ModelOptions(context_tokens=8192, max_output_tokens=512))
        assert (model.context_tokens, model.max_output_tokens, model.price) == (8192, 512, None)


async def test_where_a_price_rises_with_the_context_the_context_ends_there():
    async with OPENROUTER.serve([]) as server:
        name = "openrouter:anthropic/claude-sonnet-4.5"
        held = OPENROUTER.connect(server, model=name)
        wide = OPENROUTER.connect(server, model=name, options=ModelOptions(context_tokens=1_000_000))
    assert held.price is not None
    assert wide.price is not None
    assert held.context_tokens < wide.context_tokens
    assert held.price.input < wide.price.input
