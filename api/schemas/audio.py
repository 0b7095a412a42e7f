"""Transcriptions: the form that is asked with, and the answer where it is JSON."""

from api.schemas.terms import NUMBER, OBJECT, STRING, USER, Json
from shared.dialects.transcription import DEFAULT_FORMAT, FORMATS

TRUTH: Json = {**STRING, "enum": ["true", "false"], "default": "false"}

TRANSCRIPTION_REQUEST: Json = {
    "type": "object",
    "required": ["file", "model"],
    "properties": {
        "file": {
            **STRING,
            "format": "binary",
            "minLength": 1,
            "description": "The parts may come in any order; with `model` before it, the file is"
            " passed on while it comes in.",
        },
        "model": {**STRING, "minLength": 1},
        "language": STRING,
        "prompt": STRING,
        "response_format": {**STRING, "enum": list(FORMATS), "default": DEFAULT_FORMAT},
        "temperature": NUMBER,
        "user": USER,
        "ollm::tags": {**STRING, "description": "Labels kept with the spend row, as JSON."},
        "ollm::dryrun": TRUTH,
        "ollm::deny_unknown_fields": TRUTH,
    },
    "additionalProperties": True,
}

TRANSCRIPTION: Json = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": STRING, "usage": OBJECT},
    "additionalProperties": True,
}
