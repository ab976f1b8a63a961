"""Addresses that lead, or are meant to lead, to a place that nobody may reach.

{port} is the port of the server with the secret, which listens on 127.0.0.1; {open} that of the server that may be
asked, on 127.0.0.2. NAMES are what a hostile name server answers.
"""

from __future__ import annotations

NAMES: dict[str, list[str]] = {
    "loop.test": ["127.0.0.1"],
    "loop6.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "private.test": ["10.0.0.7"],
    "metadata.test": ["169.254.169.254"],
    "mixed.test": ["93.184.216.34", "127.0.0.1"],
    "zone.test": ["fe80::1%lo"],
    "empty.test": [],
    "odd.test": ["not an address"],
    "nat.test": ["64:ff9b::7f00:1"],
    "a" * 63 + ".test": ["127.0.0.1"],
}

DIRECT = """
http://127.0.0.1:{port}/secret
http://127.0.0.1/
http://127.1:{port}/secret
http://127.0.1:{port}/secret
http://2130706433:{port}/secret
http://0x7f000001:{port}/secret
http://0x7f.0.0.1:{port}/secret
http://0x7f.1:{port}/secret
http://0177.0.0.1:{port}/secret
http://017700000001:{port}/secret
http://127.0.0.01:{port}/secret
http://127.0.0.1.:{port}/secret
http://0:{port}/secret
http://0.0.0.0:{port}/secret
http://127.255.255.254:{port}/secret
http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:{port}/secret
http://\uff11\uff12\uff17.0.0.1:{port}/secret
http://127\u30020\u30020\u30021:{port}/secret
http://%31%32%37.0.0.1:{port}/secret
http://127.0.0.1%2f:{port}/secret
http://localhost:{port}/secret
http://LOCALHOST:{port}/secret
http://localhost.:{port}/secret
http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3:{port}/secret
http://[::1]:{port}/secret
http://[0:0:0:0:0:0:0:1]:{port}/secret
http://[0000:0000:0000:0000:0000:0000:0000:0001]:{port}/secret
http://[::]:{port}/secret
http://[::ffff:127.0.0.1]:{port}/secret
http://[::ffff:7f00:1]:{port}/secret
http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/secret
http://[::127.0.0.1]:{port}/secret
http://[::ffff:0:127.0.0.1]:{port}/secret
http://[64:ff9b::127.0.0.1]:{port}/secret
http://[64:ff9b:1::7f00:1]:{port}/secret
http://[2002:7f00:1::]:{port}/secret
http://[2001:0:7f00:1::]:{port}/secret
http://[fe80::1%25lo]:{port}/secret
http://[fe80::1]:{port}/secret
http://[fec0::1]:{port}/secret
http://[fd00::1]:{port}/secret
http://[ff02::1]:{port}/secret
http://[::1%25]:{port}/secret
http://10.0.0.1/
http://172.16.0.1/
http://192.168.0.1/
http://100.64.0.1/
http://169.254.169.254/latest/meta-data/
http://198.18.0.1/
http://192.0.0.8/
http://192.88.99.1/
http://224.0.0.1/
http://240.0.0.1/
http://255.255.255.255/
http://user@127.0.0.1:{port}/secret
http://user:word@127.0.0.2:{open}/page
http://127.0.0.2:{open}@127.0.0.1:{port}/secret
http://127.0.0.2:{open}\\\\@127.0.0.1:{port}/secret
http://127.0.0.1:{port}\\\\.example.org/secret
http://127.0.0.2:{open} @127.0.0.1:{port}/secret
http://127.0.0.1\t:{port}/secret
http://127.0.0.2:22/
http://127.0.0.2:6379/
http://93.184.216.34:25/
http://[::1/
http://:{port}/secret
http:///secret
http:127.0.0.1:{port}/secret
//127.0.0.1:{port}/secret
127.0.0.1:{port}/secret
file:///etc/passwd
file://127.0.0.1/etc/passwd
ftp://127.0.0.1/
gopher://127.0.0.1:{port}/_GET%20/secret
dict://127.0.0.1:{port}/
ws://127.0.0.1:{port}/secret
unix:///var/run/docker.sock
jar:http://127.0.0.1:{port}/secret!/
data:text/html,<p>hello</p>
javascript:alert(1)
view-source:http://127.0.0.1:{port}/secret
http://loop.test:{port}/secret
http://loop6.test:{port}/secret
http://mapped.test:{port}/secret
http://private.test/
http://metadata.test/latest/
http://mixed.test:{port}/secret
http://zone.test/
http://empty.test/
http://odd.test/
http://nat.test/
http://xn--/
http://exa mple.org/
http://127.0.0.1:99999999/
http://127.0.0.1:-1/
"""
URLS = [line.replace("\\\\", "\\") for line in DIRECT.split("\n") if line]
URLS += [
    "http://" + "a" * 63 + ".test:{port}/secret",
    "http://" + "a" * 3000,
    "",
    "   ",
    "http://127.0.0.1:{port}\r\nHost: x",
]

REDIRECTS = """
http://127.0.0.1:{port}/secret
//127.0.0.1:{port}/secret
http://2130706433:{port}/secret
http://[::ffff:127.0.0.1]:{port}/secret
http://localhost:{port}/secret
http://loop.test:{port}/secret
http://mixed.test:{port}/secret
http://user@127.0.0.1:{port}/secret
http://127.0.0.1.:{port}/secret
http://169.254.169.254/latest/
http://127.0.0.2:22/
file:///etc/passwd
data:text/html,hello
javascript:alert(1)
http://[::1
/again
"""
TARGETS = [line for line in REDIRECTS.split("\n") if line]
