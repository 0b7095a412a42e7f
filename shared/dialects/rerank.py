"""The rerank document: Cohere's shape of `POST /v1/rerank`, checked when it comes in."""

from typing import Any

from shared.dialects.faults import INT32_MAX, bad, integer, missing, text
from shared.dialects.request import (
    InferenceRequest,
    decode,
    deny_unknown,
    read_model,
    read_own_tags,
    read_truth,
    read_user,
    refuse_twice,
)

MAX_DOCUMENTS = 10_000
"""Ten times what providers take; each is checked."""

KNOWN_FIELDS = frozenset(
    "model query documents top_n return_documents max_tokens_per_doc user ollm::tags ollm::dryrun"
    " ollm::deny_unknown_fields".split()
)


def parse(body: bytes) -> InferenceRequest:
    """Decodes and checks. Raises InvalidRequest with `param` set to the path of what is wrong."""
    fields = decode(body)
    refuse_twice(body, fields)
    model = read_model(fields)
    if fields.get("query") is None:
        raise missing("query")
    text("query", fields["query"])
    if not fields["query"]:
        raise bad("query", "must not be empty", "too_short")
    _check_documents(fields.get("documents"))
    if (top_n := fields.get("top_n")) is not None:
        integer("top_n", top_n, 1, INT32_MAX)
    read_truth(fields, "return_documents")
    if read_truth(fields, "ollm::deny_unknown_fields"):
        deny_unknown(fields, KNOWN_FIELDS)
    return InferenceRequest(
        fields=fields,
        model=model,
        user=read_user(fields),
        tags=read_own_tags(fields),
        dryrun=read_truth(fields, "ollm::dryrun"),
    )


def _check_documents(documents: Any) -> None:
    if documents is None:
        raise missing("documents")
    if type(documents) is not list:
        raise bad("documents", "must be an array", "list_type")
    if not documents:
        raise bad("documents", "must hold at least one document", "too_short")
    if len(documents) > MAX_DOCUMENTS:
        raise bad("documents", f"may hold at most {MAX_DOCUMENTS} documents", "too_long")
    for at, document in enumerate(documents):
        if type(document) is dict:
            if type(document.get("text")) is not str:
                raise bad(f"documents.{at}.text", "must be a string", "string_type")
        elif type(document) is not str:
            raise bad(f"documents.{at}", "must be a string or an object with 'text'", "string_type")


def count_characters(fields: dict[str, Any]) -> int:
    """Of a checked request: the query and all documents."""
    return len(fields["query"]) + sum(
        len(document if type(document) is str else document["text"])
        for document in fields["documents"]
    )
