"""What all sections of `sluice.yaml` are made of: their base and the types of their values."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
BaseUrl = Annotated[str, Meta(pattern=r"^(https?://[^/]|http\+unix://)\S*$")]
ProxyUrl = Annotated[str, Meta(pattern=r"^(https?|socks5)://\S+$")]
Quant = Literal["none", "awq", "int8", "int4", "fp8"]
Count = Annotated[int, Meta(ge=1)]
Weight = Annotated[float, Meta(ge=0.01, le=100)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: an unknown key is an error."""
