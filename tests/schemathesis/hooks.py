"""What Schemathesis has to be told: how JSON Lines are written, and what OpenAPI cannot say."""

import json

import schemathesis

LINES = "application/x-ndjson"


@schemathesis.serializer(LINES)
def write_lines(_context, value):
    # What is no list is a negative case: it goes out as it is.
    items = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


@schemathesis.deserializer(LINES)
def read_lines(_context, response):
    return [json.loads(line) for line in response.text.splitlines()]


@schemathesis.hook
def before_call(_context, case, _kwargs):
    # What is meant to be refused goes out as it is, and is refused.
    if case.operation.label != "POST /v1/deletions" or not (case.meta is None or case.meta.generation.mode.is_positive):
        return
    # With a JSON body every query parameter is refused, with JSON Lines they are what stands beside the contacts. OpenAPI
    # has no words for parameters that depend on the media type.
    if case.media_type == "application/json":
        case.query = {}
    # To JSON Schema 1.0 is an integer, and it has no words against it. The gateway takes no id with a fraction.
    case.body = whole(case.body)


def whole(value):
    """The same with every 1.0 as 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value
