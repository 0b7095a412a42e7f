"""JSON schemas of what the routes take and answer, for the OpenAPI document.

They repeat the checks of `shared.dialects`; a test compares the two.
"""
