"""What the schemas of all endpoints are made of."""

from typing import Any

from shared.job import CACHE_MODES

Json = dict[str, Any]

STRING: Json = {"type": "string"}
USER: Json = {
    **STRING,
    "description": "Kept as the tag `end_user`. With the master key, and with keys that bill by it,"
    " it names the billed user.",
}

NUMBER: Json = {"type": "number"}

BOOLEAN: Json = {"type": "boolean"}

OBJECT: Json = {"type": "object"}

INT32: Json = {"type": "integer", "format": "int32"}

COUNT: Json = {**INT32, "minimum": 0}

TAGS: Json = {
    "description": "Labels kept with the spend row.",
    "oneOf": [
        {"type": "object", "additionalProperties": STRING},
        {"type": "array", "items": {**STRING, "pattern": "^[^=]+="}},
    ],
}

CACHE_OPTIONS: Json = {
    "type": "object",
    "description": "An answer to the very same request may be kept and given again. For a TEE or ZDR"
    " model the key needs the scope `cache`.",
    "properties": {
        "enabled": {**STRING, "enum": list(CACHE_MODES), "default": "off"},
        "max_age_s": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Older entries are not used.",
        },
    },
}

DRYRUN: Json = {
    **BOOLEAN,
    "default": False,
    "description": "The provider is called, but nothing is billed and nothing is kept.",
}
