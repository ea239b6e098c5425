"""The tables, one module per subject. Importing this registers every case, in the order of the rules."""

from . import tunnel, websocket, offers, answers, head_data, half_close  # noqa: F401
from . import framing, syntax, host, fields, forwarding, paths  # noqa: F401
