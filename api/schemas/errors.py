"""The error envelope, and the responses that hold it."""

from api.schemas.terms import STRING, Json

ERROR: Json = {
    "type": "object",
    "required": ["error", "detail"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": STRING,
                "type": STRING,
                "code": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
            },
        },
        "detail": {
            "description": "The message, or the list of what is wrong with the body.",
            "oneOf": [STRING, {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}}],
        },
    },
}

FAULT: Json = {
    "type": "object",
    "required": ["loc", "msg", "type"],
    "properties": {
        "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
        "msg": STRING,
        "type": STRING,
    },
}

ERRORS: dict[str, str] = {
    "400": "The body is wrong.",
    "401": "No key, or not one of ours.",
    "403": "Not allowed.",
    "404": "There is no such thing.",
    "408": "The request did not come in time.",
    "409": "It exists.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "422": "The body or a parameter is wrong.",
    "429": "Too many requests, here or at the provider.",
    "500": "A bug.",
    "502": "The provider failed, after retries and fallback.",
    "503": "The queue is full, a store is away, or the process is draining.",
    "504": "The provider, or the queue, was too slow.",
}

INFERENCE_ERRORS = tuple(status for status in ERRORS if status not in {"409", "422"})


def schema_of(name: str) -> Json:
    """A media type's reference to one of SCHEMAS."""
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def answer(description: str, schema: str) -> Json:
    """A response with a JSON body."""
    return {"description": description, "content": {"application/json": schema_of(schema)}}


def refusals(*statuses: str) -> dict[int | str, Json]:
    """The responses of these statuses, all of them in the envelope."""
    return {status: answer(ERRORS[status], "Error") for status in statuses}
