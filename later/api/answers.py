"""JSON for any text: in ASCII, because a receipt or a refusal may quote characters that UTF-8 refuses."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse


class Answer(JSONResponse):
    """A body that is sent as it is. The schemas describe it; a test holds that it is like them."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")
