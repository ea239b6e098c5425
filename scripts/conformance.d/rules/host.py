"""H3: one Host, a valid one, and the one that was routed on."""

from cases import POLICY, Attempt, Wrong, case, head, websocket

HOST = "RFC 9112 §3.2"

for name, hosts in {
    "none": [],
    "two": ["gateway.test", "other.test"],
    "two-equal": ["gateway.test", "gateway.test"],
    "comma": ["gateway.test, other.test"],
    "space": ["gateway.test other.test"],
    "slash": ["gateway.test/other"],
    "userinfo": ["user@gateway.test"],
    "port-junk": ["gateway.test:80x"],
    "port-sign": ["gateway.test:+80"],
    "backslash": ["gateway.test\\other"],
    "quote": ['"gateway.test"'],
    "open-bracket": ["[::1"],
    "query": ["gateway.test?x"],
}.items():

    @case(f"H3.{name}", HOST, f"Host {hosts} is refused", smoke=name in ("none", "two", "userinfo"))
    def _(slot, hosts=hosts):
        return Attempt(
            slot, websocket(host=None, extra=[("Host", host) for host in hosts])
        ).refused()


for name, value in {
    "empty": "",
    "port-range": "gateway.test:99999",
    "8-bit": "g\xe4teway.test",
}.items():

    @case(f"H3.{name}", POLICY, f"Host {value!r} is refused")
    def _(slot, value=value):
        return Attempt(slot, websocket(host=value)).refused()


for name, value in {
    "port": "gateway.test:8080",
    "ipv6": "[::1]:8080",
    "upper": "GATEWAY.test",
    "port-empty": "gateway.test:",
}.items():

    @case(f"H3.good-{name}", HOST, f"Host {value!r} is a good one", smoke=name == "ipv6")
    def _(slot, value=value):
        return Attempt(slot, websocket(host=value)).opens()


@case(
    "H3.absolute",
    "RFC 9112 §3.2.2",
    "absolute-form: its authority replaces the Host field",
    smoke=True,
)
def _(slot):
    attempt = Attempt(slot, websocket(target="http://right.test/chat", host="wrong.test"))

    def replaced(seen):
        hosts, target = seen.get("host"), seen.target
        if b"wrong.test" in seen.raw:
            return "the other Host passed on"
        return hosts == ["right.test"] or b"right.test" in target or f"backend got Host {hosts}"

    return attempt.refused_or(replaced)


for name, basis, method, target in [
    ("scheme", POLICY, "GET", "ftp://gateway.test/"),
    ("absolute-userinfo", POLICY, "GET", "http://user@gateway.test/"),
    ("absolute-no-host", POLICY, "GET", "http:///chat"),
    ("authority-get", "RFC 9112 §3.2.3", "GET", "gateway.test:80"),
    ("asterisk-get", "RFC 9112 §3.2.4", "GET", "*"),
    ("relative", HOST, "GET", "chat"),
    ("connect-path", "RFC 9110 §9.3.6", "CONNECT", "/chat"),
]:

    @case(f"H3.{name}", basis, f"`{method} {target}` is refused")
    def _(slot, method=method, target=target):
        return Attempt(slot, websocket(method=method, target=target)).refused()


@case("H3.connect", POLICY, "CONNECT opens no tunnel and does not reach the backend", smoke=True)
def _(slot):
    attempt = Attempt(
        slot, head(method="CONNECT", target="gateway.test:80", host="gateway.test:80")
    )
    if attempt.status and attempt.status < 400:
        raise Wrong(attempt.word)
    return attempt.refused()
