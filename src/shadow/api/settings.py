"""Routes of settings: all of them for administrators, secrets never; what holds for tasks by default for everybody."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from starlette.requests import Request

from shadow.bootstrap import default_limits
from shadow.core.accounts import Scope
from shadow.http.responses import Answer, message_answer
from shadow.http.routes import ApiRoute, ApiRoutes
from shadow.settings import Origin, Settings, Source, variable_name
from shadow.tasks.service import TaskLimits
from shadow.wire.settings import DefaultsMessage, SettingListMessage, SettingMessage, WorkspaceLimitsMessage
from shadow.wire.usage import BudgetsMessage

_CREDENTIAL = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_ANY: TypeAdapter[Any] = TypeAdapter(Any)


class SettingRoutes:
    def __init__(self, settings: Settings, origins: Mapping[str, Origin], limits: TaskLimits) -> None:
        """``origins``: by the names of settings; what is not there is a default."""
        self._settings = settings
        self._origins = origins
        self._limits = limits

    def routes(self) -> ApiRoutes:
        return [
            ApiRoute(
                "GET",
                "/v1/settings",
                self.list,
                summary="Every setting of this server, and where its value comes from.",
                answer=SettingListMessage,
                access=Scope.ADMIN,
            ),
            ApiRoute(
                "GET",
                "/v1/defaults",
                self.defaults,
                summary="What holds for tasks and users unless somebody said otherwise.",
                answer=DefaultsMessage,
                access=Scope.TASKS_READ,
            ),
        ]

    async def list(self, request: Request) -> Answer:
        shown = tuple(self._shown(name, field) for name, field in Settings.model_fields.items())
        return message_answer(SettingListMessage(settings=shown))

    def _shown(self, name: str, field: FieldInfo) -> SettingMessage:
        value: object = getattr(self._settings, name)
        origin = self._origins.get(name, Origin(source=Source.DEFAULT))
        unit = cast("dict[str, object]", field.json_schema_extra or {}).get("unit")
        is_secret = isinstance(value, SecretStr)
        return SettingMessage(
            name=name,
            variable=variable_name(name),
            about=field.description or "",
            unit=str(unit) if unit is not None else None,
            source=origin.source.value,
            source_name=origin.name,
            is_secret=is_secret,
            is_set=bool(value.get_secret_value()) if isinstance(value, SecretStr) else value is not None,
            value=None if is_secret else plain(value),
            default=None if is_secret else plain(_default(field)),
        )

    async def defaults(self, request: Request) -> Answer:
        settings = self._settings
        return message_answer(
            DefaultsMessage(
                model=settings.model,
                egress=settings.egress,
                limits=WorkspaceLimitsMessage.of(default_limits(settings)),
                live_tasks=self._limits.live_per_owner,
                budgets=BudgetsMessage.of(self._limits.budgets),
                hibernate_after_s=settings.task_hibernate_after_s,
                archive_after_s=settings.task_archive_after_s,
                delete_after_s=settings.task_delete_after_s,
            )
        )


def _default(field: FieldInfo) -> object:
    default: object = field.get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default


def plain(value: object) -> object:
    """As JSON has it; an address without the credential that it may hold."""
    if isinstance(value, BaseModel | Path):
        return str(value)
    if isinstance(value, str):
        return _CREDENTIAL.sub("…", value)
    if isinstance(value, tuple):
        return [plain(one) for one in cast("tuple[object, ...]", value)]
    return _ANY.dump_python(value, mode="json")
