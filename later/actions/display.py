"""Texts that are shown to a person: nothing in them steers what shows them."""

from __future__ import annotations

import re

# The directions of writing are among them; line breaks and tabs are not, nor what joins the parts of an emoji.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text with everything that would steer a display made visible."""
    return _STEERING.sub(lambda sign: repr(sign[0])[1:-1], text.replace("\r\n", "\n"))
