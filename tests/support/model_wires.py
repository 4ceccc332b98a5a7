"""Every provider against its stand-in, and one request of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shadow.agent.model import Model
from shadow.agent.providers.making import Endpoint, ModelOptions, make_model
from shadow.core.conversation import AssistantMessage, Delta, Message, ModelRequest, ToolDescription, UserMessage
from tests.support.anthropic_standin import AnthropicStandIn
from tests.support.model_replies import Reply
from tests.support.model_standin import Seen, StandIn
from tests.support.openai_standin import OpenAiStandIn, OpenRouterStandIn

READ_FILE = ToolDescription(
    name="read_file",
    description="Read a file.",
    parameters={"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
)
LIST_DIR = ToolDescription(name="list_dir", description="List.", parameters={"type": "object", "properties": {}})


@dataclass(frozen=True)
class Wire:
    """``model`` as a user would write it; ``settings``: whose endpoint it is."""

    model: str
    settings: str
    stand_in: type[StandIn]

    def __str__(self) -> str:
        return self.model.partition(":")[0]

    def serve(self, replies: Sequence[Reply] | Callable[[Seen], Reply]) -> StandIn:
        return self.stand_in(replies)

    def connect(
        self, server: StandIn, *, key: str | None = None, options: ModelOptions | None = None, model: str | None = None
    ) -> Model:
        endpoint = Endpoint(base_url=server.url, key=server.key if key is None else key)
        made = make_model(model or self.model, endpoints={self.settings: endpoint}, options=options)
        server.clients.append(made)
        return made


ANTHROPIC = Wire("anthropic:claude-opus-4-6", "anthropic", AnthropicStandIn)
RESPONSES = Wire("openai:gpt-5", "openai", OpenAiStandIn)
CHAT = Wire("openai-chat:gpt-4.1", "openai", OpenAiStandIn)
COMPATIBLE = Wire("compatible:some-model", "compatible", OpenAiStandIn)
OLLAMA = Wire("ollama:qwen3", "ollama", OpenAiStandIn)
OPENROUTER = Wire("openrouter:qwen/qwen3-coder", "openrouter", OpenRouterStandIn)
WIRES = (ANTHROPIC, RESPONSES, CHAT, COMPATIBLE, OLLAMA, OPENROUTER)


def request(*messages: Message | str, tools: Sequence[ToolDescription] = (READ_FILE, LIST_DIR)) -> ModelRequest:
    said = tuple(UserMessage(text=message) if isinstance(message, str) else message for message in messages)
    return ModelRequest(instructions="Be brief.", messages=said, tools=tools, max_output_tokens=1000)


@dataclass
class Heard:
    deltas: list[Delta] = field(default_factory=list[Delta])
    answer: AssistantMessage | None = None

    @property
    def message(self) -> AssistantMessage:
        assert self.answer is not None
        return self.answer


async def ask(model: Model, asked: ModelRequest, heard: Heard | None = None) -> Heard:
    """The whole of one answer. Pass ``heard`` to see what came before an error."""
    heard = heard or Heard()
    async for item in model.stream(asked):
        assert heard.answer is None, "something came after the answer"
        if isinstance(item, AssistantMessage):
            heard.answer = item
        else:
            heard.deltas.append(item)
    return heard
