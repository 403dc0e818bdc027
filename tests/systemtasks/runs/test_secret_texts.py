"""The secrets in a text are masked, and the rest of it is as it was."""

import time
from base64 import b64encode

import pytest

from systemtasks.runs.secret_texts import MASK, OwnSecrets, mask_text

BASIC = b64encode(b"bob:hunter2").decode()
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nAgEA\n-----END RSA PRIVATE KEY-----"

MASKED = [
    # The user and the password of a URL.
    ("postgres://bob:hunter2@host:5432/db", f"postgres://{MASK}@host:5432/db"),
    ("redis://:hunter2@host/0 is away", f"redis://{MASK}@host/0 is away"),
    ("amqp://bob:hunt/er@2@host//", f"amqp://{MASK}@host//"),
    ("https://0123456789abcdef@github.com/x.git", f"https://{MASK}@github.com/x.git"),
    (
        "'redis://:pw1@a:1' or 'redis://:pw2@b:2'",
        f"'redis://{MASK}@a:1' or 'redis://{MASK}@b:2'",
    ),
    ("redis://:pw1@a:1;redis://:pw2@b:2", f"redis://{MASK}@a:1;redis://{MASK}@b:2"),
    ("https://bob:hunt… (12 more characters)", f"https://{MASK}… (12 more characters)"),
    ("to=amqp%3A%2F%2Fbob%3Ahunter2%40host%2F", f"to=amqp%3A%2F%2F{MASK}%40host%2F"),
    # Headers of HTTP.
    ("sent Bearer abc.def-1 to it", f"sent Bearer {MASK} to it"),
    ("bearer s3cr3t", f"bearer {MASK}"),
    ("Bearer sesame", f"Bearer {MASK}"),
    (f"got {JWT}, expired", f"got {MASK}, expired"),
    (f"Basic {BASIC}", f"Basic {MASK}"),
    ("Basic " + BASIC.rstrip("="), f"Basic {MASK}"),
    (f"basic {BASIC[:-3]}… (3 more characters)", f"basic {MASK}… (3 more characters)"),
    ("Token 9944b09199c62bcf9418ad846dd0e4bb", f"Token {MASK}"),
    ("Authorization: Digest a=b, c=d\nHost: x", f"Authorization: {MASK}\nHost: x"),
    ("Authorization: Custom abc, more", f"Authorization: {MASK}, more"),
    ("Cookie: a=b; c=d\r\nHost: x", f"Cookie: {MASK}\r\nHost: x"),
    ('Cookie: a="b c"; d=e\nHost: x', f"Cookie: {MASK}\nHost: x"),
    ('Set-Cookie: sid="b"; HttpOnly', f"Set-Cookie: {MASK}"),
    ("[(b'cookie', b'sid=a'), (b'a', b'b')]", f"[(b'cookie', b'{MASK}'), (b'a', b'b')]"),
    ("curl -u bob:hunter2 host", f"curl -u {MASK} host"),
    ("curl '--user' bob", "curl '--user' bob"),
    # Tokens with a form of their own.
    ("ghp_0123456789abcdefABCD is wrong", f"{MASK} is wrong"),
    ("github_pat_11ABC_def0123", MASK),
    ("glpat-0123456789abcdefghij", MASK),
    ("sk-proj-0123456789abcdef", MASK),
    ("sk_live_0123456789abcdef", MASK),
    ("AKIAIOSFODNN7EXAMPLE:x", f"{MASK}:x"),
    ("xoxb-123456789012-abcdef", MASK),
    ("AIzaSyA-0123456789abcdefghijklmnopqrstu", MASK),
    ("npm_0123456789abcdefghij0123456789abcdef", MASK),
    ("https://hooks.slack.com/services/T000/B000/XXXX", f"https://{MASK}"),
    (f"{KEY}\nfoo", f"-----BEGIN RSA PRIVATE KEY-----{MASK}-----END RSA PRIVATE KEY-----\nfoo"),
    (KEY[:40] + "… (9 more characters)", f"{KEY[:31]}{MASK}… (9 more characters)"),
    ("/bot123456789:AAEhBOweik6ad6PsVMRxjeQKXkq8/send", f"/{MASK}/send"),
    ("https://discord.com/api/webhooks/123/abcDEF-ghi_jkl", f"https://{MASK}"),
    # Names and values: of objects, dictionaries, queries, commands, JSON, XML.
    ("Login(user='bob', password='hunter2')", f"Login(user='bob', password='{MASK}')"),
    ("user='bob' password='it\\'s' x=1", f"user='bob' password='{MASK}' x=1"),
    ("{'password': 'hunter2', 'x': 1}", f"{{'password': '{MASK}', 'x': 1}}"),
    ("{b'password': b'hunter2'}", f"{{b'password': b'{MASK}'}}"),
    ('{"n": {"apiKey": "k", "pin": 1234}}', f'{{"n": {{"apiKey": "{MASK}", "pin": {MASK}}}}}'),
    (r'"{\"password\": \"hunter2\"}"', rf'"{{\"password\": \"{MASK}\"}}"'),
    ("credentials={'u': 'a', 'b': {'c': 'd'}} and", f"credentials={MASK} and"),
    ("tokens=['a', 'b'], x=('c')", f"tokens={MASK}, x=('c')"),
    ("[('X-Api-Key', 'abc'), ('A', 'b')]", f"[('X-Api-Key', '{MASK}'), ('A', 'b')]"),
    ("/x?token=abc&page=2", f"/x?token={MASK}&page=2"),
    ("host=db password=hunter2 user=bob", f"host=db password={MASK} user=bob"),
    ("password = hunter2", f"password = {MASK}"),
    ("Password: hunter2", f"Password: {MASK}"),
    ("user[password]=x&a=b", f"user[password]={MASK}&a=b"),
    ("mysql --password hunter2 -h db", f"mysql --password {MASK} -h db"),
    ("psql --password=hunter2", f"psql --password={MASK}"),
    ("['mysql', '--password', 'x', '-h']", f"['mysql', '--password', '{MASK}', '-h']"),
    ("<user>a</user><password>b</password>", f"<user>a</user><password>{MASK}</password>"),
    ("sessionid=abc; csrftoken=def", f"sessionid={MASK}; csrftoken={MASK}"),
    ("password='hunt… (5 more characters)", f"password='{MASK}"),
    ("a=1 password=hun,ter;2&3 b=2", f"a=1 password={MASK} b=2"),
    ("password=hunter2,user=bob;x=1", f"password={MASK},user=bob;x=1"),
    ("/x?token=abc&page=2&a", f"/x?token={MASK}&page=2&a"),
    ("password=hun(ter2 b=2", f"password={MASK} b=2"),
    ("User(password=SecretStr('hunter2'), a=1)", f"User(password={MASK}, a=1)"),
    ("User(password=Secret(value=b'hunter2'), a=1)", f"User(password={MASK}, a=1)"),
    ("<SimpleCookie: sessionid='abc'>", f"<SimpleCookie: {MASK}>"),
    ("password=f'hunter2'", f"password=f'{MASK}'"),
    ('password="""hun"ter2"""', f'password="""{MASK}"""'),
    ("password: |\n  hunter2\n  x\nuser: bob", f"password: {MASK}\nuser: bob"),
    ("api_key: >-\n    a1\n", f"api_key: {MASK}\n"),
    ("q=password%3Dhunter2%26user%3Dbob", f"q=password%3D{MASK}%26user%3Dbob"),
    # What Postgres and SQL say.
    ("Key (token)=(abc) already exists.", f"Key (token)=({MASK}) already exists."),
    ('Key (id, "apiKey")=(1, a(b)c) is', f'Key (id, "apiKey")=({MASK}) is'),
    ("ALTER ROLE bob PASSWORD 'it''s'", f"ALTER ROLE bob PASSWORD '{MASK}'"),
    ("IDENTIFIED BY 'hunter2' x", f"IDENTIFIED BY '{MASK}' x"),
    # XML and HTML.
    ("<a:password>b</a:password>", f"<a:password>{MASK}</a:password>"),
    ('<password type="x">b</password>', f'<password type="x">{MASK}</password>'),
    ("<password><![CDATA[b<c]]></password>", f"<password>{MASK}</password>"),
    ('<add key="password" value="b"/>', f'<add key="password" value="{MASK}"/>'),
    ("<p name='password'>b</p>", f"<p name='password'>{MASK}</p>"),
    ("{'name': 'DB_PASSWORD', 'value': 'b'}", f"{{'name': 'DB_PASSWORD', 'value': '{MASK}'}}"),
    (
        r"{\"name\": \"token\", \"value\": \"b\"}",
        rf"{{\"name\": \"token\", \"value\": \"{MASK}\"}}",
    ),
]

UNMASKED = [
    "Charged order 17 for author_id=3, max_tokens=100",
    "see http://localhost:8080/users/a@b",
    "https://example.org/@user and bob@example.org",
    "git@github.com:shop/shop.git",
    "the bearer of news",
    "Key (email)=(a@b.c) already exists.",
    "<user>bob</user> and <p name='user'>bob</p>",
    "{'name': 'user', 'value': 'bob'}",
    "https%3A%2F%2Fhost%3A8080%2F%40x",
    "docker run -u 1000:1000 -v /a:/b and sudo -u bob",
    "if token == other and password: Optional",
    "page%3D2%26user%3Dbob",
    "Bearer token is missing",
    "Basic authentication failed",
    "Basic usage: shop --help",
    "a token of appreciation",
    "KeyError: 'password'",
    "jwt.exceptions.InvalidTokenError: Signature has expired",
    "password: must be at least 8 characters long",
    "f() got an unexpected keyword argument 'password'",
    "['session', 'pin', 'x']",
    "token=None, password=None",
    "if token == other or token != old",
    "a task-queue-of-long-name and sk-learn",
    "eyJ is how it begins",
    f"password='{MASK}'",
    f"postgres://{MASK}@host/db",
    'File "/srv/app.py", line 3, in login\n    client.get(token=token, password="x")\n',
    "",
]


@pytest.mark.parametrize(("text", "masked"), MASKED)
def test_secrets_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask_text(text) == masked
    assert mask_text(f"Before it: {text}") == f"Before it: {masked}"
    assert mask_text(masked) == masked


@pytest.mark.parametrize("text", UNMASKED)
def test_text_without_secrets_is_as_it_was(text: str) -> None:
    assert mask_text(text) == text


def test_code_of_a_traceback_is_kept_and_its_message_is_masked() -> None:
    code = (
        '  File "/srv/app.py", line 3, in login\n    get(\n        token=token,\n    )\n    ~~~^^\n'
    )
    text = f"Traceback (most recent call last):\n{code}ValueError: token=abc"

    assert mask_text(text) == text.replace("abc", MASK)
    assert mask_text(f"  | {code}") == f"  | {code}"


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 100_000, "a=" * 50_000, "token=" * 20_000, "'token':" * 12_000, "://" * 30_000),
        *("//a:" * 25_000, "eyJ" * 30_000, "Bearer " * 14_000, "{token={" * 12_000, "--a" * 30_000),
        *(
            "-----BEGIN PRIVATE KEY-----" * 4000,
            '\\"' * 50_000,
            "a.b-" * 25_000,
            "Cookie:" * 14_000,
        ),
        *("password='" * 10_000, "Authorization: a" * 6000, "// : @" * 16_000),
    ],
    ids=lambda text: text[:20],
)
def test_hostile_text_takes_no_longer_than_another(text: str) -> None:
    begin = time.process_time()
    mask_text(text)

    assert time.process_time() - begin < 3


def test_own_values_are_masked_in_all_their_forms() -> None:
    own = OwnSecrets.of(["hunter2hunter2", 'it\'s "1"/2', "4711"])
    assert own

    assert own.mask("pw hunter2hunter2!") == f"pw {MASK}!"
    assert own.mask("xhunter2hunter2y") == f"x{MASK}y"
    assert own.mask(repr({"a": 'it\'s "1"/2'})) == f"{{'a': '{MASK}'}}"
    assert own.mask('{"a": "it\'s \\"1\\"/2"}') == f'{{"a": "{MASK}"}}'
    assert own.mask("?q=it%27s%20%221%22%2F2") == f"?q={MASK}"
    assert own.mask("pin 4711, order 147110") == f"pin {MASK}, order 147110"


@pytest.mark.parametrize("value", ["abc", "", "   ", "True", "None", "****"])
def test_value_that_would_blank_every_text_is_not_looked_for(value: str) -> None:
    assert OwnSecrets.of([value]) is None


def test_part_of_an_own_value_at_the_end_of_a_cut_text_is_masked() -> None:
    own = OwnSecrets.of(["hunter2hunter2"])
    assert own

    assert own.mask("pw hunter2h… (30 more characters)") == f"pw {MASK}… (30 more characters)"
    assert own.mask("(30 characters before) …ter2hunter2: no") == (
        f"(30 characters before) …{MASK}: no"
    )


def test_own_value_with_a_lone_surrogate_is_masked() -> None:
    own = OwnSecrets.of(["hunter\ud8002"])
    assert own

    assert own.mask("pw hunter\ud8002") == f"pw {MASK}"
