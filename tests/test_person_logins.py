"""People at a command line: signing in, one refresh token in a file that each command renews, and signing out."""

from __future__ import annotations

import asyncio
import json
import secrets
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from auth import people, refresh_tokens
from auth.roles import Role, scopes_of
from auth.token_tables import RefreshToken
from model_store.database import transaction
from sluice import AsyncClient, Client
from sluice.answers import CredentialsInvalid
from sluice.cli import app
from sluice.completing import model_names
from sluice.kept_sign_in import LoginLock
from sluice.logins import keep, place_of, profiles
from tests.live_gateway import refused
from tests.people_kit import PASSWORD, Browser, add_person
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway
from tests.rights_kit import serve
from tests.test_second_factors import set_up

TOKENS = "/admin/tokens"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as running:
        serve(running.parts, "line")
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without logins."""
    for name in ("URL", "CLIENT_ID", "CLIENT_SECRET", "CREDENTIALS", "PROFILE"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(app, arguments, input=text, env={"COLUMNS": "200"})


def address(gateway: QuietGateway) -> str:
    return str(gateway.http.base_url).rstrip("/")


def signed_in(gateway: QuietGateway, role: Role = Role.OPERATOR) -> Path:
    """The login of a new person, as `sluice login` leaves it behind; a password takes a tenth of a second."""
    with transaction(gateway.parts.sessions) as session:
        person = people.create(session, f"p-{secrets.token_hex(4)}", role=role)
        text = refresh_tokens.issue(session, person.id, scopes_of(role)).text
        known = {"base_url": address(gateway), "person": person.name, "refresh_token": text}
    gateway.parts.snapshot.refresh()
    return keep("default", known)


def kept_token(place: Path) -> str:
    return str(json.loads(place.read_text())["refresh_token"])


def refreshes(gateway: QuietGateway, text: str) -> bool:
    form = {"grant_type": "refresh_token", "refresh_token": text}
    return gateway.http.post("/oauth/token", data=form).is_success


def test_a_person_signs_in_with_a_code_works_and_signs_out(gateway: QuietGateway):
    # given somebody with a second factor
    add_person(gateway, "ada", Role.OPERATOR)
    with Browser(gateway) as browser:
        browser.enter("ada")
        codes, _ = set_up(browser)
    login = ("login", address(gateway), "--user", "ada", "--secret-stdin")

    # when the code is missing, or wrong, nothing is kept
    for text in (f"{PASSWORD}\n", f"{PASSWORD}\n000000\n"):
        assert "nothing is kept" in str(run(*login, text=text).exception)
    assert profiles() == []

    # when both are right, a file that only its owner reads holds one token, and no command prints any of it
    code = codes.code()
    ended = run(*login, text=f"{PASSWORD}\n{code}\n")
    assert ended.exit_code == 0, ended.exception
    place = place_of("default")
    first = kept_token(place)
    assert (stat.S_IMODE(place.stat().st_mode), stat.S_IMODE(place.parent.stat().st_mode)) == (0o600, 0o700)
    assert json.loads(place.read_text()).keys() == {"base_url", "person", "refresh_token"}
    assert (PASSWORD in place.read_text(), code in place.read_text()) == (False, False)

    # then commands ask as this person, each with the next token
    said = run("whoami", "--json")
    assert said.exit_code == 0, said.exception
    told = json.loads(said.output)
    assert (told["person"], told["from"]) == ("ada", "the login default")
    assert {"predict", "explain", "models:write"} <= set(told["scopes"])
    assert "ada" in run("whoami").output
    assert "line" in run("models", "list").output
    last = kept_token(place)
    assert len({first, last}) == 2
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert not any(token in ended.output + said.output for token in (first, last, PASSWORD))

    # and signing out ends it at the gateway, not here alone
    left = run("logout")
    assert left.exit_code == 0, left.exception
    assert profiles() == []
    assert not refreshes(gateway, last)
    assert "sluice login" in str(run("whoami").exception)


def test_many_at_once_renew_one_after_the_other(gateway: QuietGateway):
    place = signed_in(gateway)

    def models(_: int) -> int:
        # Each as a command of its own: with its own file, connection and token.
        with Client.from_file(place) as client:
            return len(client.get("/admin/models")["models"])

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(models, range(24))) == [1] * 24
    assert refreshes(gateway, kept_token(place)), "nobody presented a token twice"


def test_who_cannot_have_the_lock_is_told_and_uses_nothing_up(gateway: QuietGateway, monkeypatch: pytest.MonkeyPatch):
    place = signed_in(gateway)
    before = kept_token(place)
    with closing(LoginLock(place)):
        monkeypatch.setattr("sluice.kept_sign_in.LOCK_SECONDS", 0.05)
        assert "another command has been renewing the sign-in" in str(run("whoami").exception)
    assert kept_token(place) == before
    assert run("whoami").exit_code == 0, "given back, it can be had"


def test_a_folder_that_cannot_be_locked_is_told_of(gateway: QuietGateway):
    place = signed_in(gateway)
    place.with_suffix(".lock").mkdir()
    assert "cannot lock" in str(run("whoami").exception)


def test_two_names_of_one_login_are_one_login(gateway: QuietGateway):
    place = signed_in(gateway)
    link = place.with_name("linked.json")
    link.symlink_to(place)
    with closing(LoginLock(place)), pytest.MonkeyPatch.context() as changed:
        changed.setattr("sluice.kept_sign_in.LOCK_SECONDS", 0.05)
        assert "another command" in str(run("whoami", "--profile", "linked").exception)
    for profile in ("linked", "default", "linked"):
        ended = run("whoami", "--profile", profile)
        assert ended.exit_code == 0, ended.exception
    assert link.is_symlink()


def test_a_lock_that_is_a_link_is_not_followed(gateway: QuietGateway, home: Path):
    place = signed_in(gateway)
    place.with_suffix(".lock").symlink_to(home / "elsewhere")
    assert "cannot lock" in str(run("whoami").exception)
    assert not (home / "elsewhere").exists()


def test_a_token_that_somebody_else_used_ends_the_sign_in(gateway: QuietGateway):
    place = signed_in(gateway)
    person = json.loads(place.read_text())["person"]
    assert refreshes(gateway, kept_token(place))

    failed = str(run("whoami").exception)

    assert failed == (
        f"{person} is not signed in at {address(gateway)} any more: `sluice login {address(gateway)} --user {person}`"
    )


def test_an_answer_without_a_token_leaves_the_kept_one_as_it_is(gateway: QuietGateway):
    place = signed_in(gateway)
    before = place.read_text()
    with transaction(gateway.parts.sessions) as session:
        # A name that the person's role has lost, and with it every scope of the sign-in.
        person = people.named(session, json.loads(before)["person"])
        person.role = "emperor"
        people.bump_generation(session)
    gateway.parts.snapshot.refresh()
    assert "scopes" in str(run("whoami").exception)
    assert place.read_text() == before


def test_a_sign_in_goes_to_no_other_address_and_is_nobody_elses(gateway: QuietGateway):
    place = signed_in(gateway)
    with pytest.raises(CredentialsInvalid, match="goes with no other address"):
        Client.from_file(place, base_url="https://elsewhere.example")
    with Client.from_file(place) as client:
        keep("default", {**json.loads(place.read_text()), "base_url": "https://elsewhere.example"})
        with pytest.raises(CredentialsInvalid, match="became another one"):
            client.models()
        place.unlink()
        with pytest.raises(CredentialsInvalid, match="cannot read"):
            client.models()
    both = run("login", address(gateway), "--user", "ada", "--client-id", "cli_a", "--secret-stdin")
    assert "--user signs a person in" in str(both.exception)
    assert "no terminal" in str(run("login", address(gateway), "--user", "ada").exception)
    assert "address of the gateway is missing" in str(run("login", "--user", "ada", "--secret-stdin").exception)


def test_who_signs_out_while_the_gateway_is_away_is_told_that_half_of_it_is_done(gateway: QuietGateway):
    place = signed_in(gateway)
    keep("default", {**json.loads(place.read_text()), "base_url": "http://127.0.0.1:1"})
    assert "is forgotten on this machine, but the gateway was not told" in str(run("logout").exception)
    assert profiles() == []


def test_a_shell_that_completes_a_word_uses_no_token_up(gateway: QuietGateway):
    place = signed_in(gateway)
    before = kept_token(place)
    assert model_names("") == []
    assert kept_token(place) == before


def test_a_task_that_has_enough_of_waiting_does_not_end_the_sign_in(gateway: QuietGateway):
    place = signed_in(gateway)
    presented = kept_token(place)

    def used_up() -> bool:
        with transaction(gateway.parts.sessions, write=False) as session:
            rows = select(RefreshToken.used_at).where(RefreshToken.used_at.is_not(None))
            known = RefreshToken.hash == refresh_tokens._hash(presented)
            return session.scalar(rows.where(known)) is not None

    async def give_up_and_ask_again() -> int:
        async with AsyncClient.from_file(place) as client:
            asking = asyncio.create_task(client.models())
            until = time.monotonic() + 20
            while not used_up() and time.monotonic() < until:
                # A moment for the task, and then none while the database is asked: the answer has to wait.
                for _ in range(5):
                    await asyncio.sleep(0)
                time.sleep(0.001)  # noqa: ASYNC251 - so that the gateway answers while the loop stands still
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            return len(await client.models())

    assert asyncio.run(give_up_and_ask_again()) == 1
    assert refreshes(gateway, kept_token(place))


def test_a_client_of_a_person_takes_back_its_sign_in(gateway: QuietGateway):
    place = signed_in(gateway)
    with Client.from_file(place) as client:
        token = client.token()
        assert repr(client) == f"Client('{address(gateway)}', '{json.loads(place.read_text())['person']}')"
        client.revoke(token)
    assert gateway.http.get("/v1/models", headers=bearer(token)).status_code == 401
    assert "is not signed in" in str(run("whoami").exception)


def test_the_route_of_command_lines_sets_no_cookie_and_is_for_no_other_site_s_page(gateway: QuietGateway):
    add_person(gateway, "berta", Role.READER)
    given = {"name": "berta", "password": PASSWORD}
    elsewhere = {"origin": "https://elsewhere.example", "sec-fetch-site": "cross-site"}
    assert refused(gateway.http.post(TOKENS, json=given, headers=elsewhere), 403, "request_forged")
    assert refused(gateway.http.post(TOKENS, json={**given, "password": "wrong"}), 401, "sign_in_failed")
    answer = gateway.http.post(TOKENS, json=given)
    assert (answer.status_code, answer.json()["scope"]) == (200, "metrics:read")
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    metrics = httpx.get(f"{address(gateway)}/metrics", headers=bearer(answer.json()["access_token"]))
    assert metrics.status_code == 200
