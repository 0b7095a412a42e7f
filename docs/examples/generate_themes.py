"""Reads a website and has design themes made from what it looks like, through the OpenAI client.

    GATEWAY_BASE_URL=http://127.0.0.1:8000/v1 GATEWAY_API_KEY=sk-ollm-… \\
        python docs/examples/generate_themes.py https://example.com --model near_gpt_oss_120b
"""

import argparse
import os
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import httpx
from openai import OpenAI
from typing_extensions import override

PAGE_BYTES = 1 << 20
MOST_SHOWN = 12
COLOR = re.compile(r"#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\b|rgba?\([^)]+\)|hsla?\([^)]+\)")
FONT = re.compile(r"font-family\s*:\s*([^;}]+)")
THEMES: dict[str, Any] = {
    "type": "object",
    "properties": {
        "themes": {
            "type": "array",
            "minItems": 3,
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "mood": {"type": "string"},
                    "primary": {"type": "string"},
                    "background": {"type": "string"},
                    "text": {"type": "string"},
                    "font": {"type": "string"},
                },
                "required": ["name", "mood", "primary", "background", "text", "font"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["themes"],
    "additionalProperties": False,
}


class Page(HTMLParser):
    """What a page says, and its styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.styles: list[str] = []
        self._within = ""
        self.feed(html)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        self.styles += [value for name, value in attrs if name == "style" and value]

    @override
    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    @override
    def handle_data(self, data: str) -> None:
        if self._within == "style":
            self.styles.append(data)
        elif self._within != "script" and data.strip():
            self.words.append(data.strip())

    def most(self, pattern: re.Pattern[str]) -> list[str]:
        found = Counter(
            match.strip().lower() for style in self.styles for match in pattern.findall(style)
        )
        return [value for value, _ in found.most_common(MOST_SHOWN)]


def read(url: str) -> Page:
    """Raises httpx.HTTPError."""
    answer = httpx.get(url, follow_redirects=True, timeout=20)
    answer.raise_for_status()
    return Page(answer.text[:PAGE_BYTES])


def themes(page: Page, model: str) -> str:
    """Three themes, as JSON text."""
    client = OpenAI(base_url=os.environ["GATEWAY_BASE_URL"], api_key=os.environ["GATEWAY_API_KEY"])
    seen = (
        f"Words: {' '.join(page.words)[:2000]}\n"
        f"Colors: {', '.join(page.most(COLOR)) or 'none'}\n"
        f"Fonts: {', '.join(page.most(FONT)) or 'none'}"
    )
    answer = client.chat.completions.create(
        model=model,
        messages=[
            {"role": "system", "content": "You design themes that fit a website."},
            {"role": "user", "content": f"Make three themes for this site.\n{seen}"},
        ],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "themes", "schema": THEMES, "strict": True},
        },
        extra_body={"ollm::tags": {"application": "generate-themes"}},
    )
    return answer.choices[0].message.content or ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Make design themes from a website.")
    parser.add_argument("url")
    parser.add_argument("--model", default="near_gpt_oss_120b")
    options = parser.parse_args()
    try:
        page = read(options.url)
    except httpx.HTTPError as error:
        print(f"{options.url} cannot be read: {error}", file=sys.stderr)
        return 1
    print(themes(page, options.model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
