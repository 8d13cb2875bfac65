"""Avro beside JSON: schemas generated from the structs, every published version of them, and the Confluent wire format.

The structs stay the one definition: a record is read by its writer's schema and then checked as a struct, exactly as a
JSON record is. `<Record>/<version>.avsc` are the published writer schemas; they are never edited.
"""
