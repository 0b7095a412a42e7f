"""The prompt: a request's messages, as the templates of a variant render them.

A text part of a message either has `text`, which the template gets as `system_text` or `user_text`,
or `ollm::arguments`, the values of the template's variables.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InvalidRequest
from shared.template import Allowance, ArgumentsMisfit, Template, compiled

ARGUMENTS = "ollm::arguments"
ROLES = {"system": "system", "developer": "system", "user": "user"}
"""Those that may have a template."""

Message = dict[str, Any]


def has_arguments(messages: Sequence[Message]) -> bool:
    return any(
        ARGUMENTS in part
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def rendered(messages: Sequence[Message], *, system: str, user: str) -> list[Message]:
    """The messages by these templates; an empty one leaves its role as it is. Raises InvalidRequest.

    Of several system messages the first is the template's. Where there is none the template is
    rendered with nothing.
    """
    templates = {
        role: compiled(text) for role, text in (("system", system), ("user", user)) if text
    }
    found, allowance = [], Allowance()
    for at, message in enumerate(messages):
        role, path = ROLES.get(message["role"], ""), f"messages.{at}"
        template = templates.get(role)
        if role == "system":
            templates.pop(role, None)
        if template is None:
            _refuse_arguments(path, message.get("content"))
            found.append(message)
        else:
            content = _Rendering(template, role, allowance).content(path, message.get("content"))
            found.append({**message, "content": content})
    if "system" in templates:
        first = _Rendering(templates["system"], "system", allowance).text("messages", {})
        found.insert(0, {"role": "system", "content": first})
    return found


def _refuse_arguments(path: str, content: Any) -> None:
    for at, part in enumerate(content if isinstance(content, list) else ()):
        if ARGUMENTS in part:
            raise InvalidRequest(
                f"'{path}.content.{at}.{ARGUMENTS}' has no template of the function's to go into.",
                param=f"{path}.content.{at}.{ARGUMENTS}",
            )


class _Rendering:
    """Of one message."""

    def __init__(self, template: Template, role: str, allowance: Allowance) -> None:
        self._template = template
        self._text_name = f"{role}_text"
        self._allowance = allowance

    def content(self, path: str, content: Any) -> Any:
        if not isinstance(content, list):
            return self._plain(path, content or "")
        parts = [self._part(f"{path}.content.{at}", part) for at, part in enumerate(content)]
        if len(parts) == 1 and parts[0]["type"] == "text":
            return parts[0]["text"]  # not all providers take parts everywhere
        return parts

    def _part(self, path: str, part: Message) -> Message:
        if part["type"] != "text":
            return part
        given = part.get(ARGUMENTS)
        if given is None:
            return {**part, "text": self._plain(path, part["text"])}
        return {"type": "text", "text": self.text(f"{path}.{ARGUMENTS}", given)}

    def _plain(self, path: str, text: str) -> str:
        if self._text_name not in self._template.names:
            raise InvalidRequest(
                f"'{path}' has text, which the function's template has no place for: it takes"
                f" '{ARGUMENTS}'.",
                param=path,
            )
        return self.text(path, {self._text_name: text})

    def text(self, path: str, arguments: Mapping[str, Any]) -> str:
        try:
            return self._template.render(arguments, self._allowance)
        except ArgumentsMisfit as error:
            message = f"'{path}' does not fit the function's template: {error}."
            raise InvalidRequest(message, param=path) from error
