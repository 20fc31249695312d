"""The configuration of RTP: its ports, how long it may be missing, its reports."""

from typing import Annotated

from pydantic import Field, model_validator

from bridge.settings import Section


class RtpSettings(Section):
    """`rtp:` of the configuration."""

    port_min: Annotated[int, Field(ge=1024, le=65534)] = 20000
    port_max: Annotated[int, Field(ge=1025, le=65535)] = 24999
    """A call takes an even port and the odd one behind it: 5000 ports carry 2500 legs."""
    first_media_timeout_s: Annotated[float, Field(gt=0)] = 30
    """A call whose caller never sends RTP ends after this."""
    media_timeout_s: Annotated[float, Field(gt=0)] = 20
    """A call whose RTP stops ends after this; not while it is on hold."""
    rtcp: bool = True
    """Send and read reports: without them loss and delay on the far side are not known."""
    rtcp_mux: bool = False
    """Offer RTCP on RTP's port (RFC 5761). An offer of it is accepted either way."""

    @model_validator(mode="after")
    def _range(self) -> "RtpSettings":
        if self.port_max - self.port_min < 2:
            raise ValueError(f"port_max {self.port_max} must be at least 2 above port_min {self.port_min}")
        return self
