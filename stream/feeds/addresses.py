"""Addresses of articles, and the ids that are made from them."""

import hashlib
import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

_TRACKERS = re.compile(
    r"(utm_.*|fbclid|gclid|dclid|gbraid|wbraid|msclkid|yclid|igshid|twclid|mc_[ce]id|_hs(enc|mi)|ref_src|cmpid|ncid"
    r"|icid|ito|at_(medium|campaign|format|link|bbc).*|ns_(mchannel|source|campaign|linkname|fee)|partner|rss)",
    re.IGNORECASE,
)
_DEFAULT_PORTS = {("http", 80), ("https", 443)}


def is_web(address: str) -> bool:
    """Whether it is an absolute http or https address."""
    parts = _split(address)
    return parts is not None and parts.scheme.lower() in ("http", "https") and bool(parts.hostname)


def host_of(address: str) -> str:
    """The host without `www.`; empty when there is none."""
    parts = _split(address)
    return (parts.hostname or "").removeprefix("www.") if parts else ""


def canonical_url(address: str) -> str:
    """The same for addresses of one article that differ in trackers, fragment, default port or case of the host."""
    parts = _split(address.strip())
    if parts is None or not parts.hostname:
        return address.strip()
    scheme = parts.scheme.lower()
    port = "" if parts.port is None or (scheme, parts.port) in _DEFAULT_PORTS else f":{parts.port}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    kept = [(name, value) for name, value in _pairs(parts.query) if not _TRACKERS.fullmatch(name)]
    return urlunsplit((scheme, f"{host}{port}", parts.path or "/", urlencode(kept), ""))


def stable_id(*, source: str, guid: str, url: str) -> str:
    """24 hex digits: of the guid where there is one (a plain number is unique within its source only), or of the
    address, with http and https being the same."""
    named = guid.strip() if guid.strip() and not is_web(guid) else ""
    text = f"{source}\n{named}" if named else canonical_url(guid or url).partition("://")[2]
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=12).hexdigest()


def _split(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises when it is no number
        return parts
    except ValueError:
        return None


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=200)
    except ValueError:
        return []
