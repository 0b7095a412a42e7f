"""The prompt: a request's messages, as the templates of a variant render them.

A text part of a message either has `text`, which the template gets as `system_text` or `user_text`,
or `ollm::arguments`, the values of the template's variables.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InvalidRequest
from shared.template import ArgumentsMisfit, Template, compiled

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
    found = []
    for at, message in enumerate(messages):
        role = ROLES.get(message["role"], "")
        template = templates.get(role)
        if role == "system":
            templates.pop(role, None)
        found.append(_message(f"messages.{at}", message, role, template))
    if "system" in templates:
        content = _text("messages", templates["system"], {})
        found.insert(0, {"role": "system", "content": content})
    return found


def _message(path: str, message: Message, role: str, template: Template | None) -> Message:
    content = message.get("content")
    if template is None:
        _refuse_arguments(path, content)
        return message
    if not isinstance(content, list):
        return {**message, "content": _text(path, template, {f"{role}_text": content or ""})}
    parts = [_part(f"{path}.content.{at}", part, role, template) for at, part in enumerate(content)]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return {**message, "content": parts[0]["text"]}  # not all providers take parts everywhere
    return {**message, "content": parts}


def _part(path: str, part: Message, role: str, template: Template) -> Message:
    if part["type"] != "text":
        return part
    given = part.get(ARGUMENTS)
    if given is None:
        return {**part, "text": _text(path, template, {f"{role}_text": part["text"]})}
    return {"type": "text", "text": _text(f"{path}.{ARGUMENTS}", template, given)}


def _text(path: str, template: Template, arguments: Mapping[str, Any]) -> str:
    for name in ("system_text", "user_text"):
        if name in arguments and name not in template.names and not path.endswith(ARGUMENTS):
            raise InvalidRequest(
                f"'{path}' has text, which the function's template has no place for: it takes"
                f" '{ARGUMENTS}'.",
                param=path,
            )
    try:
        return template.render(arguments)
    except ArgumentsMisfit as error:
        message = f"'{path}' does not fit the function's template: {error}."
        raise InvalidRequest(message, param=path) from error


def _refuse_arguments(path: str, content: Any) -> None:
    for at, part in enumerate(content if isinstance(content, list) else ()):
        if ARGUMENTS in part:
            raise InvalidRequest(
                f"'{path}.content.{at}.{ARGUMENTS}' has no template of the function's to go into.",
                param=f"{path}.content.{at}.{ARGUMENTS}",
            )
