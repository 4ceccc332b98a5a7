"""What a request for a workspace means: whose executor, which operation, which command."""

import os
from collections.abc import Callable

from starlette.requests import HTTPConnection, Request

from shadow.core.errors import NotFound, Rejected
from shadow.core.ids import CommandId, Operation, OperationId, is_id, make_id
from shadow.execution.interface import ToolExecutor
from shadow.http.requests import Entropy, integer

MAX_EPOCH = 2**63 - 1

ExecutorOf = Callable[[HTTPConnection], ToolExecutor]
"""The executor that a request is for."""
OperationOf = Callable[[Request], Operation]
"""The operation that a mutating request is. Raises: Rejected."""


class Operations:
    """Of callers who know the workspace's epoch. What they leave out is made up: a fresh id, the newest epoch that was seen."""

    def __init__(self, epoch: int, *, entropy: Entropy = os.urandom) -> None:
        self._newest = epoch
        self._entropy = entropy

    def __call__(self, request: Request) -> Operation:
        epoch = request.headers.get("shadow-epoch")
        number = integer(epoch, what="Shadow-Epoch") if epoch is not None else self._newest
        if not 0 <= number <= MAX_EPOCH:
            raise Rejected(f"Shadow-Epoch must lie between 0 and {MAX_EPOCH}.")
        id_ = operation_id(request) or OperationId(make_id("op", entropy=self._entropy(16)))
        self._newest = max(self._newest, number)
        return Operation(id=id_, epoch=number)


def operation_id(request: Request) -> OperationId | None:
    """Raises: Rejected."""
    id_ = request.headers.get("shadow-operation")
    if id_ is not None and not is_id(id_):
        raise Rejected("Shadow-Operation must be an id: a-z, 0-9, _ and -, at most 64 characters.")
    return None if id_ is None else OperationId(id_)


def command_id(request: Request) -> CommandId:
    text = request.path_params["command_id"]
    if not is_id(text):
        raise NotFound("There is no such command.")
    return CommandId(text)
