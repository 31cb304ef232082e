"""From files to a frozen snapshot, and back to words for people.

`yaml/` reads text into nodes that know their place; `schema/` declares what may stand in a file, each key once;
`load/` checks nodes against it and makes the snapshot; `tell/` says snapshots and problems to people and editors;
`process/` does the loading in a process of its own. Whoever loads a file imports `sidecar.config.load` alone. Whoever
must start fast or stay small imports neither `load/` nor `schema/models.py`, which bring YAML and pydantic; the
latter comes with what `tell/` says to editors, too (`json_schema.py`).
"""
