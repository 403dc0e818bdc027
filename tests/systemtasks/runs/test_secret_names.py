"""Values are masked by the words of their names, however a name is spelled."""

import pytest
from pytest_django import Settings

from systemtasks.runs.secret_names import hides, spelled

HIDDEN = """
    password passwords password1 new_password user.password userPassword PassWord DB_PASSWORD
    dbpassword password_hash password_reset_url passwd htpasswd pwd db_pass passphrase passcode
    secret secrets client_secret clientSecret AWS_SECRET_ACCESS_KEY secret_id totp_secret
    token tokens access_token accessToken refresh-tokens csrftoken csrfmiddlewaretoken x_csrf_token
    OAuthToken bearer_token api_token_value credential credentials creds userCredentials
    cookie cookies set-cookie HTTP_COOKIE session sessions session_id sessionid sessionKey PHPSESSID
    auth basic_auth http-auth authorization Authorization HTTP_AUTHORIZATION Proxy-Authorization
    auth_code authCode auth_header oauth
    dsn sentry_dsn SENTRY_DSN connection_string otp otps totp pin PIN pins PINs user_pin user-pin
    user.pin pinCode cvv cvv2 CVC card_number cardNumber credit_card security_code securityCode
    ssn jwt JWTs private_key privateKey PRIVATE_KEY private-keys ssh_key sshKey signing_key
    encryptionKey api_key apiKey apikey API_KEY APIKey APIKeys X-Api-Key x.api.key stripe_key
    access_key accessKey aws_access_key signature sig x-hub-signature seed_phrase mnemonic
    recovery_codes verification_code wpa_psk PSK puk db_pw pw kubeconfig keytab kennwort
    one_time_code client_assertion SAMLResponse code_verifier oauth_verifier magicLink storage_key
"""

SHOWN = """
    author author_id authorId AUTHOR_ID authority authored auth_user_id auth_method
    keyword keywords keyWord monkey donkey turkey hotkey keyboard key keys Key primary_key
    primaryKey sort_key cache_key foreign_key public_key partition_key routing_key
    idempotency_key s3_key object_key key_name keyName
    passenger passengers bypass compass compassion passive passport passed passes pass_rate
    capital capitalize api api_url apiVersion apiary rapid
    tokenizer tokenize tokenized token_count tokenCount max_tokens maxTokens prompt_tokens
    total_tokens token_type token_expires_in token_url token_id api_key_id
    pinned pin_color opinion shipping spinning Pinterest secretary secretariat
    session_count session_timeout obsession assessment SESSION_COOKIE_NAME cookie_domain
    cookiecutter password_changed_at password_length password_required credit credits accredited
    discard cards signal design assign signed_at significance codec barcode code encoding cvs
    pwned upward time_zone code response storage_class http_response spw
    dns assn hotpot otpimized name url page id file user InvalidTokenError
"""


@pytest.mark.parametrize("name", HIDDEN.split())
def test_name_of_a_secret_is_hidden(name: str) -> None:
    assert hides(name)


@pytest.mark.parametrize("name", SHOWN.split())
def test_name_that_only_looks_like_one_is_shown(name: str) -> None:
    assert not hides(name)


def test_setting_hides_more_names_and_those_of_secrets_all_the_same(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"HIDDEN_KEYS": "iban|^birth"}

    assert [hides(name) for name in ("customer_IBAN", "birthday", "password")] == [True] * 3
    assert [hides(name) for name in ("rebirth", "page")] == [False] * 2


def test_setting_shows_names_that_are_hidden_otherwise(settings: Settings) -> None:
    settings.SYSTEMTASKS = {"HIDDEN_KEYS": "iban", "SHOWN_KEYS": "^(training_session|iban_count)$"}

    assert [hides(name) for name in ("training_session", "iban_count")] == [False] * 2
    assert [hides(name) for name in ("session", "iban")] == [True] * 2


def test_all_spellings_of_a_name_are_one() -> None:
    spellings = ("card_number", "cardNumber", "CardNumber", "CARD-NUMBER", "card.number")

    assert {spelled(name) for name in spellings} == {"card_number"}
