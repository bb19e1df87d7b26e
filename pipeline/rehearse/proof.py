"""An integration's authentication → what a request must carry to pass its door."""

from __future__ import annotations

from base64 import b64encode

from pipeline.rulebook.book import Authentication


def proof_of(authentication: Authentication) -> tuple[dict[str, str], dict[str, str]]:
    """Return the headers and the query parameters that prove it. They are secret: never log
    them.
    """
    secret = authentication.secret
    match authentication.kind:
        case "header":
            return {authentication.name.lower(): secret}, {}
        case "query":
            return {}, {authentication.name: secret}
        case "bearer":
            return {"authorization": f"Bearer {secret}"}, {}
        case "basic":
            pair = b64encode(f"{authentication.name}:{secret}".encode()).decode()
            return {"authorization": f"Basic {pair}"}, {}
        case "open":
            return {}, {}
