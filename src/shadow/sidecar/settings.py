"""What a sidecar is told when it starts: one JSON object on its stdin. It reads nothing from the environment."""

from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from shadow.core.errors import SettingsRefused
from shadow.core.workspaces import Isolation
from shadow.http.admission import HttpLimits

MAX_SETTINGS_BYTES = 64 * 1024


class SidecarSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    token: SecretStr = Field(min_length=16)
    root: str
    """The checkout, as commands see it."""
    state_dir: str
    workspace_id: str
    isolation: Isolation
    file_size_bytes: int | None = Field(default=None, gt=0)
    """No file may be written larger."""
    listen_fd: int = Field(ge=0)
    """A listening socket, bound by whoever started the workspace."""
    holder_fd: int = Field(ge=0)
    """A connected socket to the holder; its end is the sidecar's."""
    limits: HttpLimits = Field(default_factory=HttpLimits)


def read_settings(stream: BinaryIO) -> SidecarSettings:
    """Raises: SettingsRefused: naming the faulty settings, never their values."""
    try:
        return SidecarSettings.model_validate_json(stream.read(MAX_SETTINGS_BYTES))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        raise SettingsRefused(f"The sidecar's settings are not right: {told}.") from None
