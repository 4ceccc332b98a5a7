"""Which operation a mutating call is, and which command it means, as its request says."""

import os

from starlette.requests import Request

from shadow.core.errors import NotFound, Rejected
from shadow.core.ids import CommandId, Operation, OperationId, is_id, make_id
from shadow.http.requests import Entropy, integer

MAX_EPOCH = 2**63 - 1


def command_id(request: Request) -> CommandId:
    text = request.path_params["command_id"]
    if not is_id(text):
        raise NotFound("There is no such command.")
    return CommandId(text)


class Operations:
    """Reads the operation of a mutating call from its headers."""

    def __init__(self, epoch: int, *, entropy: Entropy = os.urandom) -> None:
        self._newest = epoch
        self._entropy = entropy

    def of(self, request: Request) -> Operation:
        """What the caller left out is made up: a fresh id, the newest epoch that was seen."""
        id_ = request.headers.get("shadow-operation")
        epoch = request.headers.get("shadow-epoch")
        if id_ is not None and not is_id(id_):
            raise Rejected("Shadow-Operation must be an id: a-z, 0-9, _ and -, at most 64 characters.")
        number = integer(epoch, what="Shadow-Epoch") if epoch is not None else self._newest
        if not 0 <= number <= MAX_EPOCH:
            raise Rejected(f"Shadow-Epoch must lie between 0 and {MAX_EPOCH}.")
        self._newest = max(self._newest, number)
        return Operation(
            id=OperationId(id_ if id_ is not None else make_id("op", entropy=self._entropy(16))), epoch=number
        )
