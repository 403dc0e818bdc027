"""Tell by its name if a value is a secret. docs/masking.md lists the names.

A name is read word by word: `apiKey`, `API_KEY` and `X-Api-Keys` have the words `api` and `key`.
Neither `monkey` nor `author_id` has a word of a secret.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from systemtasks.conf import conf


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


ENDINGS = tuple(
    _listed("""
    apikey cookie credential kennwort passcode passphrase passwd password passwort secret token
""")
)
"""Words of secrets, which need not stand alone: `dbpassword` ends with one."""

WORDS = _listed("""
    authorization cred cvc cvn cvv dsn hotp jsessionid jwt keytab kubeconfig mnemonic otp pgpass
    phpsessid privkey psk puk pwd senha sessid ssn totp
""")
"""Words of secrets, anywhere in a name."""

LAST_WORDS = _listed("""
    auth authentication bearer csrf oauth pass pin pw session sig signature xsrf
""")
"""Words of secrets only at the end of a name: `user_pin`, but not `pin_color`."""

PHRASES = _listed("""
    access_code auth_code auth_data auth_header auth_info backup_code card_no card_num
    card_number cc_num cc_number client_assertion code_verifier connection_string credit_card
    debit_card fa_code magic_link mfa_code oauth_verifier pass_code pass_key pass_phrase pass_wd
    pass_word pin_code pin_hash pin_number recovery_code recovery_phrase saml_response
    security_answer security_code seed_phrase sess_id session_data session_hash session_id
    session_key time_code verification_code
""")
"""Two words that are a secret together."""

KEYS = _listed("""
    access account activation admin aes algolia anthropic api app auth authentication
    authorization aws azure bot cipher client consumer crypto datadog decrypt decryption deploy
    deployment django dsa ecdsa encrypt encryption fernet firebase gcp github gitlab google gpg
    hmac host ingest ingestion instrumentation integration jwk kms licence license mailgun
    master merchant openai pgp private recovery rsa security sendgrid sentry server service
    shared sign signature signing slack ssh ssl storage stripe subscription tls twilio vault wallet
    webhook
""")
"""The words before `key` that make it a secret. `cache_key` is not one, and neither is `key`."""

ABOUT = _listed("""
    age alg algorithm arn at attempt audience backend bit budget class column consent count date
    day denied dir directory disabled domain duration enabled error exception expiration expire
    expired expires expiry failed failure field file filename format hour in interval invalid
    issuer kind label len length lifetime limit max method min minute missing mode name on
    optional path policy provider rate required retry scope second secs size state status
    strength template time timeout timestamp ttl type usage used valid validator validity
    version warning
""")
"""The last words of names that describe a secret: `password_expires_at`."""

ABOUT_ONE = _listed("""
    endpoint host prefix uri url user username
""")
"""Such words that count only directly after a secret's word.

`token_url` is not a secret, but `password_reset_url` is one.
"""

IDS = _listed("""
    id ids pk uuid
""")
"""The last words of names that identify a secret: `api_key_id`. A `secret_id` is one, in Vault."""

COUNTS = _listed("""
    cached completion input max min n num number output prompt reasoning remaining total used
""")
"""The words before `tokens` that make it a number: `max_tokens`."""

_JOINED = {phrase.replace("_", "") for phrase in PHRASES} | {f"{word}key" for word in KEYS}

_WORD = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")


def hides(name: str) -> bool:
    """Return True if the value of this name is masked.

    The settings HIDDEN_KEYS and SHOWN_KEYS add to the names of this module and take from them.
    """
    rules = conf()
    return _hides(name, rules.HIDDEN_KEYS, rules.SHOWN_KEYS)


@lru_cache(4096)
def _hides(name: str, hidden: str, shown: str) -> bool:
    if shown and re.search(shown, name, re.IGNORECASE):
        return False
    return bool(hidden and re.search(hidden, name, re.IGNORECASE)) or is_of_secret(name)


def is_of_secret(name: str) -> bool:
    """Return True if the words of the name are those of a secret."""
    words = _words(name)
    single = [_singular(word) for word in words]
    return any(
        not _is_about(single[end:], of=single[end - 1])
        and not (words[end - 1] == "tokens" and COUNTS.intersection(single[: end - 1]))
        for end in _ends_of_secrets(single)
    )


@lru_cache(4096)
def spelled(name: str) -> str:
    """Return the words of a name with underscores: `card_number` for `cardNumber`, too."""
    return "_".join(_words(name))


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _ends_of_secrets(words: Sequence[str]) -> Iterator[int]:
    """Yield the index after each word or phrase of a secret."""
    for end, word in enumerate(words, 1):
        before = words[end - 2] if end > 1 else ""
        if (
            word in WORDS
            or word in _JOINED
            or word.endswith(ENDINGS)
            or "password" in word
            or (word in LAST_WORDS and end == len(words))
            or f"{before}_{word}" in PHRASES
            or (word == "key" and before in KEYS)
        ):
            yield end


def _is_about(rest: Sequence[str], of: str) -> bool:
    """Return True if the words after a secret's word say that the value is not the secret."""
    if not rest:
        return False
    last = rest[-1]
    if last in IDS:
        return of != "secret"
    return last in ABOUT or (len(rest) == 1 and last in ABOUT_ONE)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word
