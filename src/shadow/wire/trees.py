"""Trees on the wire. The archives travel as raw bodies; this is the rest."""

from shadow.core.trees import TreeReceipt
from shadow.wire.message import Message
from shadow.wire.values import Offset

MEDIA_TYPE = "application/x-tar"


class TreeReceiptMessage(Message, core=TreeReceipt):
    files: Offset
    directories: Offset
    links: Offset
    size_bytes: Offset
