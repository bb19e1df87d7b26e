from __future__ import annotations

import time
from base64 import b64decode, b64encode
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from pydantic import BaseModel, ConfigDict, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from pipeline.sink.signing import Secrets, Signer, key_of

OLD = "whsec_" + b64encode(b"o" * 24).decode()
NEW = "whsec_" + b64encode(b"n" * 64).decode()
OTHER = "whsec_" + b64encode(b"x" * 32).decode()
BODY = '{"n":1,"é":"ü"}'.encode()


class Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)
    sign: Secrets = ()


def test_the_published_library_takes_a_signature() -> None:
    """What is signed here is verified by the library of Standard Webhooks itself."""
    headers = Signer([OLD]).headers("d1", int(time.time()), BODY)
    assert Webhook(OLD).verify(BODY, headers) == {"n": 1, "é": "ü"}


@pytest.mark.parametrize(
    "change",
    [
        {"body": BODY + b" "},
        {"webhook-id": "d2"},
        {"webhook-timestamp": "0"},
        {"secret": OTHER},
    ],
)
def test_whatever_is_changed_breaks_it(change: dict[str, Any]) -> None:
    """Another body, id, time or secret is refused by the library."""
    headers = Signer([OLD]).headers("d1", int(time.time()), BODY)
    body, secret = change.pop("body", BODY), change.pop("secret", OLD)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers | change)


def test_while_secrets_change_both_are_good() -> None:
    """With two secrets a receiver that knows either takes the request, and one of neither not."""
    headers = Signer([NEW, OLD]).headers("d1", int(time.time()), BODY)
    for secret in (OLD, NEW):
        Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(BODY, headers)


def test_the_specifications_own_example() -> None:
    """The example of the specification's reference implementation gives the same signature."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = Signer([secret]).headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("hunter22", "begins with whsec_"),
        ("whsec_hunter22 hunter22 hunter22 hunter22", "must be base64"),
        ("whsec_" + b64encode(b"hunter22").decode(), "24 to 64 random bytes"),
        ("whsec_" + b64encode(b"hunter22" * 9).decode(), "24 to 64 random bytes"),
    ],
)
def test_a_bad_secret_is_refused_without_showing_it(secret: str, words: str) -> None:
    """What is no secret is refused with what one is, and is not shown."""
    with pytest.raises(ValidationError, match=words) as caught:
        Model(sign=secret)  # type: ignore[arg-type]
    assert "hunter22" not in str(caught.value)
    assert secret.removeprefix("whsec_") not in str(caught.value)


def private(seed: bytes, public: bytes = b"") -> str:
    return "whsk_" + b64encode(seed + public).decode()


def signed_part(headers: dict[str, str], place: int = 0) -> tuple[str, bytes]:
    """The scheme and the bytes of one signature."""
    scheme, text = headers["webhook-signature"].split(" ")[place].split(",")
    return scheme, b64decode(text)


@pytest.mark.parametrize("with_public", [False, True])
def test_ed25519(with_public: bool) -> None:
    """What is signed with `whsk_…` is verified with the public key alone, over id, second and
    body; the key may have its public part behind it.
    """
    key = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    public = key.public_key().public_bytes_raw() if with_public else b""

    headers = Signer([private(b"s" * 32, public)]).headers("d1", 1_614_265_330, BODY)

    scheme, signature = signed_part(headers)
    assert scheme == "v1a"
    key.public_key().verify(signature, b"d1.1614265330." + BODY)
    for changed in (b"d2.1614265330." + BODY, b"d1.1614265331." + BODY, b"d1.1614265330."):
        with pytest.raises(InvalidSignature):
            key.public_key().verify(signature, changed)


def test_ed25519_of_the_rfc() -> None:
    """The seed of RFC 8032's first test is used as the RFC does: its public key verifies."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")

    scheme, signature = signed_part(Signer([private(seed, public)]).headers("d", 1, b""))

    Ed25519PublicKey.from_public_bytes(public).verify(signature, b"d.1.")
    assert (scheme, len(signature)) == ("v1a", 64)


def test_both_kinds_side_by_side() -> None:
    """While receivers change over, one that knows the secret and one that knows the public key
    both take the request.
    """
    headers = Signer([private(b"s" * 32), OLD]).headers("d1", int(time.time()), BODY)

    assert signed_part(headers)[0] == "v1a"
    Webhook(OLD).verify(BODY, headers)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("whsk_hunter22 hunter22 hunter22", "must be base64"),
        ("whsk_" + b64encode(b"hunter22").decode(), "32 bytes, or 64"),
        ("whsk_" + b64encode(b"hunter22" * 8).decode(), "another key's public part"),
        ("whpk_" + b64encode(b"hunter22" * 4).decode(), "begins with whsec_, or with whsk_"),
    ],
)
def test_a_bad_private_key_is_refused_without_showing_it(secret: str, words: str) -> None:
    """What is no private key is refused with what one is, and is not shown."""
    with pytest.raises(ValidationError, match=words) as caught:
        Model(sign=secret)  # type: ignore[arg-type]
    assert secret.partition("_")[2] not in str(caught.value)


def test_one_secret_or_several() -> None:
    """`sign` is one secret or a list of up to five, and shows none."""
    one = Model(sign=OLD)  # type: ignore[arg-type]
    assert [secret.get_secret_value() for secret in one.sign] == [OLD]
    assert len(Model(sign=[OLD, NEW]).sign) == 2  # type: ignore[arg-type]
    assert OLD not in repr(one)
    with pytest.raises(ValidationError, match="at most 5"):
        Model(sign=[OLD] * 6)  # type: ignore[arg-type]


def test_padding_may_be_missing() -> None:
    """A secret without base64's padding is the same secret, as in the published libraries."""
    assert key_of(OTHER.rstrip("=")) == key_of(OTHER)
