"""Judges a request to Amazon SES by AWS's own model of the service, as botocore carries it.

    service_model.py OPERATION '{"method": ..., "uri": ..., "body": {...}}'

Prints a line for each fault, and nothing about a request that is good. Members are compared one by one,
and with what the model bounds: types, required members, enumerations, lengths and patterns.
"""

import base64
import binascii
import json
import re
import sys

from botocore.loaders import Loader
from botocore.model import ServiceModel

TYPES = {
    "structure": (dict, "object"),
    "map": (dict, "object"),
    "list": (list, "list"),
    "string": (str, "string"),
    "blob": (str, "string"),
    "boolean": (bool, "boolean"),
    "integer": (int, "integer"),
    "long": (int, "integer"),
    "double": ((int, float), "number"),
    "float": ((int, float), "number"),
    "timestamp": ((int, float), "number"),
}


def faults(shape, value, path):
    expected, name = TYPES[shape.type_name]
    # To Python, True is a number.
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        yield f"{path}: no {name}"
        return
    if shape.type_name == "structure":
        yield from members(shape, value, path)
    elif shape.type_name == "list":
        yield from length(shape, value, path)
        for position, one in enumerate(value):
            yield from faults(shape.member, one, f"{path}[{position}]")
    elif shape.type_name == "map":
        yield from length(shape, value, path)
        for key, one in value.items():
            yield from faults(shape.key, key, f"{path}.{key}")
            yield from faults(shape.value, one, f"{path}.{key}")
    elif shape.type_name == "blob":
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            yield f"{path}: no base64"
    elif shape.type_name == "string":
        yield from length(shape, value, path)
        if shape.enum and value not in shape.enum:
            yield f"{path}: none of {shape.enum}"
        pattern = shape.metadata.get("pattern")
        if pattern and not re.search(pattern, value):
            yield f"{path}: does not match {pattern}"


def members(shape, value, path):
    dot = f"{path}." if path else ""
    # A member may have another name on the wire.
    known = {one.serialization.get("name", name): one for name, one in shape.members.items()}
    for name in value.keys() - known.keys():
        yield f"{dot}{name}: no member of {shape.name}"
    for name in shape.required_members:
        wire = shape.members[name].serialization.get("name", name)
        if wire not in value:
            yield f"{dot}{wire}: is required"
    for name, one in known.items():
        if name in value:
            yield from faults(one, value[name], f"{dot}{name}")


def length(shape, value, path):
    shortest, longest = shape.metadata.get("min"), shape.metadata.get("max")
    if shortest is not None and len(value) < shortest:
        yield f"{path}: shorter than {shortest}"
    if longest is not None and len(value) > longest:
        yield f"{path}: longer than {longest}"


def main():
    operation, request = sys.argv[1], json.loads(sys.argv[2])
    model = ServiceModel(Loader().load_service_model("sesv2", "service-2")).operation_model(operation)
    if (request["method"], request["uri"]) != (model.http["method"], model.http["requestUri"]):
        print(f"{request['method']} {request['uri']}: expected {model.http['method']} {model.http['requestUri']}")
    for fault in faults(model.input_shape, request["body"], ""):
        print(fault)


main()
