"""The list of models, and how the gateway is."""

from api.schemas.terms import BOOLEAN, NUMBER, STRING, Json

MODEL: Json = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "is_active", "model_info", "pricing"],
    "properties": {
        "id": STRING,
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": STRING,
        "is_active": BOOLEAN,
        "input_cost_per_token": NUMBER,
        "output_cost_per_token": NUMBER,
        "max_input_tokens": {"type": ["integer", "null"]},
        "max_output_tokens": {"type": ["integer", "null"]},
        "input_modalities": {"type": "array", "items": STRING},
        "output_modalities": {"type": "array", "items": STRING},
        "display_name": STRING,
        "model_info": {
            "type": "object",
            "properties": {
                "tier": {"enum": ["TEE", "ZDR", None]},
                "providers": {"type": "array", "items": STRING},
                "description": STRING,
            },
        },
        "pricing": {
            "type": "object",
            "properties": {"input_price_per_million": NUMBER, "output_price_per_million": NUMBER},
        },
    },
}

MODELS: Json = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
    },
}

HEALTH: Json = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": STRING},
    "additionalProperties": True,
}

TIER_FILTERS: list[Json] = [
    {
        "name": name,
        "in": "query",
        "description": "`false` hides the models of the tier.",
        "schema": {**STRING, "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"},
    }
    for name in ("allow_tee", "allow_zdr")
]
