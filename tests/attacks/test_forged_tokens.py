"""A01 to A58: tokens that are malformed, forged or beside the point, each against an act of administration."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.attacks.target import Target, target
from tests.forgery import OTHER_KEY, assembled, encoded, es256

INVALID = 'Bearer realm="sluice", error="invalid_token"'
REFUSED = {
    "type": "about:blank", "title": "Invalid token", "status": 401, "code": "invalid_token",
    "detail": "the access token is not valid",
}  # fmt: skip

Forge = Callable[[Target], str | bytes]


@dataclass(frozen=True, slots=True)
class Attack:
    """A forged token; `expected` is the status, 401 with the one answer for all unless it says otherwise."""

    id: str
    what: str
    token: Forge
    expected: int = 401


def attack(id: str, what: str, token: Forge, expected: int = 401) -> Attack:
    return Attack(id, what, token, expected)


def by_claims(id: str, **variants: dict[str, object]) -> list[Attack]:
    return [
        attack(id, what.replace("_", " "), lambda on, changes=changes: on.signed(claims=on.claims(**changes)))
        for what, changes in variants.items()
    ]


def by_header(id: str, **variants: dict[str, object]) -> list[Attack]:
    return [
        attack(id, what.replace("_", " "), lambda on, changes=changes: on.signed(header=on.header(**changes)))
        for what, changes in variants.items()
    ]


def by_times(id: str, what: str, **seconds: int) -> Attack:
    """Claims that lie so many seconds from now."""
    return attack(
        id,
        what,
        lambda on: on.signed(claims=on.claims(**{name: int(time.time()) + offset for name, offset in seconds.items()})),
    )


def by_payload(id: str, **variants: Callable[[str], str]) -> list[Attack]:
    return [
        attack(
            id,
            what.replace("_", " "),
            lambda on, change=change: on.signed(claims=change(json.dumps(on.claims())).encode()),
        )
        for what, change in variants.items()
    ]


def by_spelling(id: str, **variants: Callable[[str], str | bytes]) -> list[Attack]:
    return [
        attack(id, what.replace("_", " "), lambda on, change=change: change(on.token))
        for what, change in variants.items()
    ]


def segment(token: str, number: int, change: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[number] = change(parts[number])
    return ".".join(parts)


def with_hmac(secret: Callable[[Target], bytes]) -> Forge:
    def forge(on: Target) -> str:
        header = json.dumps(on.header(alg="HS256")).encode()
        sign = lambda message: hmac.digest(secret(on), message, hashlib.sha256)  # noqa: E731
        return assembled(header, json.dumps(on.claims()).encode(), sign)

    return forge


def public(encoding: Encoding, form: PublicFormat) -> Callable[[Target], bytes]:
    return lambda on: on.key.public.key.public_bytes(encoding, form)


def with_signature(signature: Callable[[Target, bytes], bytes]) -> Forge:
    return lambda on: assembled(
        json.dumps(on.header()).encode(), json.dumps(on.claims()).encode(), lambda message: signature(on, message)
    )


def by_rsa(on: Target) -> str:
    key = rsa.generate_private_key(65537, 2048)
    header = json.dumps(on.header(alg="RS256")).encode()
    return assembled(
        header, json.dumps(on.claims()).encode(), lambda message: key.sign(message, PKCS1v15(), hashes.SHA256())
    )


def exchanged(on: Target) -> str:
    """The claims of a stronger token under the signature of another."""
    weak = on.signed(claims=on.claims(scope="predict")).split(".")
    return f"{weak[0]}.{encoded(json.dumps(on.claims()).encode())}.{weak[2]}"


def another_signature(on: Target) -> str:
    return on.signed().rpartition(".")[0] + "." + on.signed(claims=on.claims(jti="another")).rpartition(".")[2]


def flipped(bit: int) -> Forge:
    def forge(on: Target) -> str:
        message, _, signature = on.signed().rpartition(".")
        raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
        raw[bit // 8] ^= 1 << bit % 8
        return f"{message}.{encoded(bytes(raw))}"

    return forge


def noncanonical(text: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def jwk_of(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    return {
        "kty": "EC", "crv": "P-256",
        "x": encoded(numbers.x.to_bytes(32, "big")), "y": encoded(numbers.y.to_bytes(32, "big")),
    }  # fmt: skip


SHA256 = ec.ECDSA(hashes.SHA256())
SPKI = PublicFormat.SubjectPublicKeyInfo
ATTACKS = [
    *by_spelling(
        "A08",
        space_inside=lambda token: token[:20] + " " + token[20:],
        tab_inside=lambda token: token[:20] + "\t" + token[20:],
        two_spaces_before=lambda token: " " + token,
        text_behind=lambda token: token + " x",
        escaped_newline_behind=lambda token: token + "%0a",
    ),
    *by_spelling(
        "A09",
        one_segment=lambda token: token.split(".")[0],
        two_segments=lambda token: token.rpartition(".")[0],
        four_segments=lambda token: token + ".AAAA",
        empty_segments=lambda _: "..",
    ),
    *by_spelling("A10", five_segments=lambda token: token + ".AAAA.AAAA"),
    *by_spelling(
        "A11",
        json_serialisation=lambda token: json.dumps(
            dict(zip(("protected", "payload", "signature"), token.split("."), strict=True))
        ),
    ),
    *by_spelling("A12", long=lambda token: token + "A" * 50_000),
    *by_spelling(
        "A13",
        non_ascii=lambda token: token.encode() + "é".encode(),
        percent=lambda token: token.replace(".", "%2e"),
        fullwidth=lambda token: "\uff0e".join(token.split(".")).encode(),
    ),
    *by_spelling(
        "A14",
        plus_and_slash=lambda token: segment(token, 2, lambda text: "+/" + text[2:]),
        **{
            f"padding_in_{number}": lambda token, number=number: segment(token, number, lambda text: text + "=")
            for number in range(3)
        },
        **{
            f"padding_twice_in_{number}": lambda token, number=number: segment(token, number, lambda text: text + "==")
            for number in range(3)
        },
    ),
    *by_spelling("A15", last_character=lambda token: segment(token, 2, noncanonical)),
    *by_header("A16", none={"alg": "none"}, nonE={"alg": "nOnE"}, empty={"alg": ""}, missing={"alg": ...}),
    attack("A16", "none, unsigned", lambda on: on.signed(header=on.header(alg="none")).rpartition(".")[0] + "."),
    *by_header(
        "A17", list={"alg": ["ES256"]}, object={"alg": {"a": 1}}, number={"alg": 256}, null={"alg": None}
    ),
    attack("A18", "HS256 with our key in PEM", with_hmac(public(Encoding.PEM, SPKI))),
    attack("A18", "without its last newline", with_hmac(lambda on: public(Encoding.PEM, SPKI)(on).rstrip())),
    attack("A18", "in DER", with_hmac(public(Encoding.DER, SPKI))),
    attack("A18", "as OpenSSH has it", with_hmac(public(Encoding.OpenSSH, PublicFormat.OpenSSH))),
    attack("A18", "as JWK", with_hmac(lambda on: json.dumps(on.key.public.jwk()).encode())),
    attack("A18", "as its point", with_hmac(public(Encoding.X962, PublicFormat.UncompressedPoint))),
    attack("A19", "HS256 with an empty secret", with_hmac(lambda on: b"")),  # noqa: ARG005
    attack("A19", "with the key's name", with_hmac(lambda on: on.key.public.kid.encode())),
    attack("A19", "with a word", with_hmac(lambda on: b"secret")),  # noqa: ARG005
    attack("A20", "RS256 under the name of an ES256 key", by_rsa),
    attack("A21", "ES256 in DER", with_signature(lambda on, message: on.key.key.sign(message, SHA256))),
    attack("A22", "zeros", with_signature(lambda on, message: bytes(64))),  # noqa: ARG005
    attack("A22", "empty", with_signature(lambda on, message: b"\0")),  # noqa: ARG005
    *by_header("A23", ES384={"alg": "ES384"}, RS384={"alg": "RS384"}, lower_case={"alg": "es256"}),
    *by_header("A24", kid_missing={"kid": ...}, kid_null={"kid": None}),
    *by_header("A25", kid_unknown={"kid": "A" * 43}),
    *by_header(
        "A26",
        path={"kid": "../../dev/null"},
        file={"kid": "/etc/passwd"},
        sql={"kid": "' OR 1=1--"},
        nul={"kid": "a\0b"},
        long={"kid": "k" * 1500},
        list={"kid": ["a"]},
        object={"kid": {"a": 1}},
    ),
    attack("A27", "by a key that ended", lambda on: on.signed(on.header(kid=OTHER_KEY.public.kid), key=OTHER_KEY)),
    *by_header("A29", jwk={"jwk": jwk_of(OTHER_KEY.public.key)}, x5c={"x5c": ["MIIB"]}),
    attack("A29", "by the jwk", lambda on: on.signed(on.header(jwk=jwk_of(OTHER_KEY.public.key)), key=OTHER_KEY)),
    *by_header("A30", unknown={"crit": ["x"]}, empty={"crit": []}, exp={"crit": ["exp"]}, b64={"b64": False}),
    *by_header("A31", JWT={"typ": "JWT"}, missing={"typ": ...}, id_token={"typ": "id_token"}),
    attack("A31", "in capitals", lambda on: on.signed(header=on.header(typ="AT+JWT")), 200),
    *by_header("A32", nested={"cty": "JWT"}),
    *by_header("A33", zip={"zip": "DEF"}, enc={"enc": "A256GCM"}),
    attack("A34", "alg twice", lambda on: on.signed(json.dumps(on.header())[:-1].encode() + b', "alg": "ES256"}')),
    attack("A35", "depth", lambda on: on.signed(header=b'{"a":' * 400 + b"1" + b"}" * 400)),
    attack("A35", "50,000 deep", lambda on: on.signed(header=b"[" * 50_000)),
    attack("A35", "not UTF-8", lambda on: on.signed(header=b'{"alg": "\xff"}')),
    attack("A35", "an array", lambda on: on.signed(header=b"[]")),
    attack("A35", "UTF-16", lambda on: on.signed(header=json.dumps(on.header()).encode("utf-16"))),
    by_times("A36", "a second past the leeway", iat=-631, nbf=-631, exp=-31),
    *by_claims("A37", no_exp={"exp": ...}),
    *by_claims(
        "A38",
        text={"exp": "9999999999"},
        fraction={"exp": 9999999999.5},
        boolean={"exp": True},
        null={"exp": None},
        list={"exp": [1]},
        nan={"exp": float("nan")},
        infinite={"exp": float("inf")},
        negative={"exp": -1},
        large={"exp": 2**63},
    ),
    *by_payload("A38", exponent=lambda text: text.replace('"exp": ', '"exp": 1e400, "was": ')),
    by_times("A39", "too long a life", exp=86_400),
    by_times("A40", "not yet", nbf=300),
    by_times("A41", "issued in the future", iat=300, exp=600),
    *by_claims("A43", no_aud={"aud": ...}),
    *by_claims("A44", other={"aud": "somebody"}),
    attack("A45", "ours among others", lambda on: on.signed(claims=on.claims(aud=["somebody", "sluice"])), 200),
    *by_claims(
        "A46", empty={"aud": []}, numbers={"aud": [1]}, object={"aud": {}}, space={"aud": "sluice "},
        capitals={"aud": "SLUICE"},
    ),
    *by_claims(
        "A47", missing={"iss": ...}, other={"iss": "staging"}, slash={"iss": "sluice/"}, list={"iss": ["sluice"]},
        prefix={"iss": "slui"},
    ),
    *by_claims("A48", missing={"sub": ...}, number={"sub": 1}, empty={"sub": ""}, another={"sub": "cli_other"}),
    *by_claims("A49", missing={"jti": ...}, number={"jti": 7}),
    *by_payload(
        "A50",
        sub=lambda text: text[:-1] + ', "sub": "cli_other"}',
        scope=lambda text: text[:-1] + ', "scope": "clients:admin"}',
        exp=lambda text: text[:-1] + ', "exp": 9999999999}',
    ),
    *by_payload(
        "A51",
        array=lambda _: "[1]",
        scalar=lambda _: "7",
        no_json=lambda _: "sub=cli_1",
        deep=lambda _: '{"a":' * 1000 + "1" + "}" * 1000,
    ),
    *by_claims(
        "A52", list={"scope": ["clients:admin"]}, unknown={"scope": "clients:admin root"},
        tab={"scope": "predict\tclients:admin"}, quote={"scope": 'clients:admin" predict'},
    ),
    attack("A53", "no signature", lambda on: on.signed().rpartition(".")[0] + "."),
    *(attack("A54", f"bit {bit}", flipped(bit)) for bit in range(0, 512, 2)),
    attack("A55", "another key under our name", lambda on: on.signed(key=OTHER_KEY)),
    attack("A56", "another payload", exchanged),
    attack("A57", "the signature of another token", another_signature),
    attack("A58", "a byte short", with_signature(lambda on, message: es256(message, on.key)[:-1])),
]  # fmt: skip


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("attacked")) as made:
        yield made


def test_the_token_that_attacks_are_made_of_is_good(attacked: Target):
    assert attacked.list_clients(f"Bearer {attacked.signed()}".encode()).status == 200


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: f"{case.id} {case.what}")
def test_a_forged_token_is_refused_like_any_other(attacked: Target, case: Attack):
    token = case.token(attacked)
    header = b"Bearer " + (token.encode() if isinstance(token, str) else token)
    if case.expected == 200:
        assert attacked.list_clients(header).status == 200
        return
    with attacked.unchanged():
        answer = attacked.create_client(header)
    if answer.status != 401 and case.id in {"A12", "A35"}:
        # More than a request's head may have: refused before anybody looks at the token.
        assert answer.status in (400, 431)
        return
    assert (answer.status, answer.challenge, answer.json()) == (401, INVALID, REFUSED)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("id", "headers", "query", "status", "challenge"),
    [
        ("A01", (), "", 401, 'Bearer realm="sluice"'),
        ("A02", ("Basic {basic}",), "", 401, 'Bearer realm="sluice"'),
        ("A03", ("Bearer",), "", 401, 'Bearer realm="sluice"'),
        ("A03", ("Bearer ",), "", 401, INVALID),
        ("A04", ("Bearer {token}", "Bearer {token}"), "", 400, 'Bearer realm="sluice", error="invalid_request"'),
        ("A04", ("Bearer x", "Bearer {token}"), "", 400, 'Bearer realm="sluice", error="invalid_request"'),
        ("A05", ("Bearer {token}",), "?access_token={token}", 400, 'Bearer realm="sluice", error="invalid_request"'),
        ("A05", ("Bearer {token}",), "?access%5Ftoken=x", 400, 'Bearer realm="sluice", error="invalid_request"'),
        ("A06", (), "?access_token={token}", 401, 'Bearer realm="sluice"'),
    ],
)
def test_a_token_that_is_not_sent_in_the_one_way_is_none(
    attacked: Target, id: str, headers: tuple[str, ...], query: str, status: int, challenge: str
):
    basic = base64.b64encode(f"{attacked.admin_id}:{attacked.admin_secret}".encode()).decode()
    sent = [text.format(token=attacked.token, basic=basic).encode() for text in headers]
    with attacked.unchanged():
        answer = attacked.create_client(*sent, query=query.format(token=attacked.token))
    assert (answer.status, answer.challenge) == (status, challenge), id
    assert attacked.token not in answer.body.decode()


def test_a07_the_scheme_may_be_written_in_any_case(attacked: Target):
    for scheme in ("bearer", "BEARER", "bEaReR"):
        assert attacked.list_clients(f"{scheme} {attacked.token}".encode()).status == 200


def test_a28_addresses_in_a_header_are_not_asked(attacked: Target):
    heard: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)

        def listen() -> None:
            while True:
                try:
                    heard.append(listener.accept())
                except OSError:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        for member in ("jku", "x5u"):
            token = attacked.signed(header=attacked.header(**{member: address}))
            with attacked.unchanged():
                assert attacked.create_client(f"Bearer {token}".encode()).json() == REFUSED
        thread.join()
    assert not heard


def test_a42_a_token_from_before_the_last_revocation_is_refused(attacked: Target):
    client_id, secret = attacked.gateway.client(
        "revoked", [*attacked.parts.snapshot.rights.clients[attacked.admin_id].scopes]
    )
    token = attacked.gateway.token(client_id, secret)
    assert attacked.list_clients(f"Bearer {token}".encode()).status == 200
    rotated = attacked.send(
        "POST", f"/admin/clients/{client_id}/rotate", [(b"Authorization", f"Bearer {attacked.token}".encode())]
    )
    assert rotated.status == 200
    assert attacked.list_clients(f"Bearer {token}".encode()).json() == REFUSED
