"""H6: the target reaches the backend as it was routed, and nothing in it becomes a line."""

import re

from cases import POLICY, Attempt, NotApplicable, Wrong, case, upgrade, websocket

for name, target in {
    "dots": "/chat/../admin",
    "dot": "/chat/./x",
    "encoded-dots": "/chat/%2e%2e/admin",
    "encoded-dots-upper": "/chat/%2E%2E/admin",
    "encoded-slash": "/chat%2f..%2fadmin",
    "double-slash": "//chat//x",
    "semicolon": "/chat;/../admin",
    "backslash": "/chat\\..\\admin",
    "encoded-nul": "/chat%00x",
    "double-encoded": "/chat/%252e%252e/admin",
    "bad-percent": "/chat/%zz",
    "question": "/chat?a=/../b&c=%2e",
}.items():

    @case(
        f"H6.{name}",
        POLICY,
        f"`{target}` is refused, or reaches the backend unchanged",
        smoke=name in ("dots", "encoded-dots"),
    )
    def _(slot, target=target):
        attempt = Attempt(slot, websocket(target=target))
        unchanged = (
            lambda seen: seen.target == target.encode() or f"became {seen.target.decode('latin-1')}"
        )
        return attempt.refused_or(unchanged)


for name, target in {
    "crlf": "/a%0d%0aX-Smuggled:%201",
    "lf": "/a%0aX-Smuggled:%201",
    "cr": "/a%0dX-Smuggled:%201",
}.items():

    @case(
        f"H6.encoded-{name}",
        "RFC 9112 §11.1",
        f"`{target}` becomes no line of its own",
        smoke=name == "crlf",
    )
    def _(slot, target=target):
        attempt = Attempt(slot, websocket(target=target))

        def clean(seen):
            return not re.search(rb"[\r\n]X-Smuggled", seen.raw) or "injected"

        return attempt.refused_or(clean)


for name, target in {"h2c-dots": "/h2c/../admin", "h2c-encoded": "/h2c/%2e%2e/admin"}.items():

    @case(
        f"H6.{name}",
        POLICY,
        f"h2c through `{target}` does not get out of the path that allows it",
        smoke=True,
    )
    def _(slot, target=target):
        if Attempt(slot, upgrade("h2c", target="/")).status == 101:
            raise NotApplicable("h2c passes on every path")
        attempt = Attempt(slot, upgrade("h2c", target=target))
        if attempt.status == 101:
            raise Wrong(f"tunnel opened to {attempt.forwarded.target.decode('latin-1')}")
        return attempt.word


@case(
    "H6.answer-crlf",
    "RFC 9112 §11.1",
    "a field value cannot carry a line into the answer of a refusal",
)
def _(slot):
    attempt = Attempt(slot, websocket(upgrade="foo\tX-Smuggled: 1", target="/%0d%0aX-Smuggled:1"))
    if attempt.response and attempt.response.get("x-smuggled"):
        raise Wrong("injected")
    return attempt.word
