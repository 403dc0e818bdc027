"""The HTTP API: authentication, queries, responses, and their OpenAPI document."""
