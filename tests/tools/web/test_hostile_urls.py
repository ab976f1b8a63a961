"""Every way that is known of reaching what may not be reached, against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import ToolError, ToolErrorKind
from agentenv.tools.web import Guard, LivePages, WebClient
from agentenv.tools.web.guard import GuardedResolver, is_public, parsed
from tests.tools.web.hostile_urls import NAMES, TARGETS, URLS
from tests.tools.web.site import PATIENCE, browsing, guard, serving


def test_the_lists_are_long_enough() -> None:
    assert len(set(URLS)) >= 90
    assert len(TARGETS) >= 15


async def test_no_address_of_the_list_reaches_anything() -> None:
    async with serving() as site, serving("127.0.0.1") as secret, browsing(site, secret, names=NAMES) as pages:
        secret.put("/secret", "the secret")
        site.put("/page", "<p>fine</p>")
        assert (await pages.page(site.url("/page"))).text == "fine"
        for url in URLS:
            with pytest.raises(ToolError) as failed:
                await pages.page(url.replace("{port}", str(secret.port)).replace("{open}", str(site.port)))
            assert failed.value.kind in (ToolErrorKind.REFUSED, ToolErrorKind.FAILED), url
            assert "secret" not in str(failed.value), url
            assert "127.0.0.1" not in str(failed.value) or "127.0.0.1" in url, url
        assert secret.requests == []
        assert site.paths == ["/page"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_of_the_list_is_followed(status: int) -> None:
    async with serving() as site, serving("127.0.0.1") as secret, browsing(site, secret, names=NAMES) as pages:
        secret.put("/secret", "the secret")
        for number, target in enumerate(TARGETS):
            location = target.replace("{port}", str(secret.port))
            first = site.put(f"/first{number}", status=status, Location=location)
            again = site.put("/again", status=status, Location="/again")
            chained = site.put("/chained", status=status, Location=first)
            for url in (first, chained, again):
                with pytest.raises(ToolError) as failed:
                    await pages.page(url)
                assert failed.value.kind in (ToolErrorKind.REFUSED, ToolErrorKind.FAILED), target
        assert secret.requests == []


async def test_a_redirect_to_a_place_that_may_be_asked_is_followed() -> None:
    async with serving() as site, browsing(site) as pages:
        site.put("/moved", status=301, Location="page#part")
        site.put("/page", "<title>T</title><p>fine</p>")
        page = await pages.page(site.url("/moved"))
        assert (page.url, page.text, page.title) == (site.url("/page"), "fine", "T")


async def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    """The first answer of the name server is harmless, each later one is the secret's address."""
    async with serving() as site, serving("127.0.0.1") as secret:
        answers = itertools.chain([["127.0.0.2"]], itertools.repeat(["127.0.0.1"]))
        asked: list[str] = []

        async def lookup(host: str, port: int) -> list[str]:
            asked.append(host)
            return next(answers)

        # The same port on both addresses, so that only the address tells them apart.
        rules = Guard(ports=frozenset({site.port}), allow=frozenset({site.place}), lookup=lookup)
        pages = LivePages(WebClient(rules, patience=PATIENCE), robots=False)
        site.put("/page", "<p>fine</p>", Connection="close")
        assert (await pages.page(f"http://rebinding.test:{site.port}/page")).text == "fine"
        assert len(asked) == 1
        await pages.close()
        with pytest.raises(ToolError, match="not on the public internet"):
            await pages.page(f"http://rebinding.test:{site.port}/other")
        await pages.close()
        assert secret.requests == []


async def test_what_the_socket_is_opened_to_is_looked_at_last() -> None:
    async with serving() as site:
        rules = guard(site)
        for address in ("127.0.0.1", "10.0.0.1"):
            with pytest.raises(ToolError):
                rules.open((2, 1, 6, "", (address, site.port)))
        with pytest.raises(ToolError):
            rules.open((1, 1, 0, "", "/var/run/docker.sock"))
        rules.open((2, 1, 6, "", (site.host, site.port))).close()
        resolver = GuardedResolver(rules)
        found = await resolver.resolve("127.0.0.2", site.port)
        assert [result["host"] for result in found] == ["127.0.0.2"]
        await resolver.close()


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as site, serving("127.0.0.1") as proxy, browsing(site) as pages:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.place}")
        site.put("/page", "<p>fine</p>")
        assert (await pages.page(site.url("/page"))).text == "fine"
        assert proxy.requests == []


async def test_a_public_name_that_nobody_answers_for_is_told_as_such() -> None:
    async with serving() as site, browsing(site) as pages:
        with pytest.raises(ToolError, match="There is no host"):
            await pages.page("http://nobody.invalid/")


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"]
)
def test_public_addresses_may_be_asked(address: str) -> None:
    assert is_public(address)
    host = f"[{address}]" if ":" in address else address
    assert str(Guard().check(f"https://{host}/a?b=c#d")) == f"https://{host}/a?b=c"


def test_one_own_address_can_be_allowed_with_its_port() -> None:
    rules = Guard(allow=frozenset({"127.0.0.1:8000", "[::1]:8000"}))
    assert rules.check("http://127.0.0.1:8000/").port == 8000
    assert rules.check("http://[::1]:8000/").port == 8000
    for url in ("http://127.0.0.1:8001/", "http://127.0.0.1/", "http://127.0.0.2:8000/"):
        with pytest.raises(ToolError):
            rules.check(url)


@given(st.ip_addresses(v=4, network="127.0.0.0/8") | st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_no_spelling_of_a_private_address_passes(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    spellings = [str(address), str(number), hex(number), oct(number).replace("0o", "0"), f"{address}."]
    octets = str(address).split(".")
    spellings += [".".join(hex(int(octet)) for octet in octets), ".".join(f"0{int(octet):o}" for octet in octets)]
    spellings += [f"{octets[0]}.{number & 0xFFFFFF}", f"[::ffff:{address}]", f"[64:ff9b::{address}]", f"[::{address}]"]
    for spelling in spellings:
        with pytest.raises(ToolError):
            Guard().check(f"http://{spelling}/")


@given(
    st.text(max_size=60) | st.text(alphabet="htp:/[]@.%0123456789abcdef\\\t ", max_size=40).map(lambda t: "http://" + t)
)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    with contextlib.suppress(ToolError):
        url = parsed(text)
        assert url.scheme in ("http", "https")
        assert url.host
        assert url.user is None


async def test_many_at_once_are_each_judged() -> None:
    async with serving() as site, serving("127.0.0.1") as secret, browsing(site, secret, names=NAMES) as pages:
        site.put("/page", "<p>fine</p>")
        urls = [site.url("/page"), f"http://loop.test:{secret.port}/secret"] * 20
        results = await asyncio.gather(*(pages.page(url) for url in urls), return_exceptions=True)
        assert [isinstance(result, ToolError) for result in results] == [False, True] * 20
        assert secret.requests == []
