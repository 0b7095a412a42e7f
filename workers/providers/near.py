"""NEAR AI Cloud: confidential models, always under their canonical names."""

from typing import ClassVar

from workers.providers.openai import OpenAIProvider


class NearProvider(OpenAIProvider):
    # An alias would have a `warning` member injected after signing, so the answer would no longer
    # match its signature: 400 is better (NEAR's cloud API, request headers).
    extra_headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ((b"x-no-aliasing", b"true"),)
