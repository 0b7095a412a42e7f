"""Transcripts for tests: whole, each different."""

from typing import Any

import msgspec

from shared.ids import new_id
from shared.transcript import Digest, Transcript


def a_transcript(**changes: Any) -> Transcript:
    transcript = Transcript(
        receipt_id=new_id(),
        request_id=new_id(),
        tenant="default",
        user="someone",
        key_id="key_1",
        model="sim_tee",
        provider="near",
        provider_type="near",
        upstream_model="org/model",
        config_hash="c0ffee",
        endpoint="chat.completions",
        tier="TEE",
        started_at=1_767_225_600.0,
        ended_at=1_767_225_601.5,
        complete=True,
        client_request=Digest("a" * 64, 120),
        forwarded_request=Digest("b" * 64, 121),
        upstream_response=Digest("c" * 64, 900),
        client_response=Digest("d" * 64, 850),
        upstream_id="chatcmpl-1",
    )
    return msgspec.structs.replace(transcript, **changes)
