"""`instrument report-bug` bundles what helps, and nothing that is secret."""

import json
import os
import re
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.doctor.secrets import GONE, Redactor
from instrument.queueserver.places import QueueDirectory
from tests.doctor.test_doctor import run

PLANTED = {
    "mongo": "m0ng0-Pa55",
    "postgres": "pg:w@rd/9",
    "consumer": "a consumer's words",
    "environment": "3nv1r0nment",
    "plain": "plain words of mine",
    "log": "0a1b2c3d4e5f6071",
    "typed": "typed-at-the-prompt",
    "key file": "00ff00ff00ff00ff00ff",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
    "short": "hunter2",
    "public key": "a6SFa/m1G]j=<@M8*gn8gd!Y5O6&v.cvSj}4Y7J-",
    "private key": "r]=VJ1#/8{uTZ]%6oK0nF!xS}>HW<PmgE4cA2sLz",
    "redis": "5d41402abc4b2a76b9719d911017c592",
}


def members(directory):
    (archive,) = directory.glob("instrument-bug-*.tar.gz")
    with tarfile.open(archive) as opened:
        return {name.partition("/")[2]: opened.extractfile(name).read().decode() for name in opened.getnames()}


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken"])
def test_what_is_planted_is_not_in_the_archive_and_the_rest_is(tmp_path, broken):
    place = tmp_path / "beamline"
    (place / ".logs").mkdir(parents=True)
    (place / ".data" / "tiled").mkdir(parents=True)
    (place / ".data" / "tiled" / "write.key").write_text(PLANTED["key file"])
    queue = QueueDirectory(place / ".data" / "queue")
    queue.make()
    keys = {"public": PLANTED["public key"], "private": PLANTED["private key"]}
    queue.keys.write_text(json.dumps(keys) + "\n")
    queue.redis_settings.write_text(f"bind 127.0.0.1\nrequirepass {PLANTED['redis']}\nport 1\n")
    (place / "iconfig.yml").write_text(f"""\
catalog: embedded
devices: [devices.yml]
tiled: {{database: "postgresql://me:{PLANTED["postgres"]}@host:5432/tiled", port: 8123}}
metadata:
  beamline_id: 45-ID
  door_password: {PLANTED["plain"]}
  home: {tmp_path}/elsewhere
ship: {{start: false, consumers: {{tests.data.consumers.FeedFiles: {{api_key: "{PLANTED["consumer"]}"}}}}}}
{"live: {table: [" if broken else ""}
""")
    (place / "devices.yml").write_text("ophyd.EpicsMotor:\n- {name: kept_name, prefix: 'x:m1'}\n")
    (place / "bluesky_class.yml").write_text(
        f"sources:\n  x:\n    driver: bluesky-mongo-normalized-catalog\n"
        f"    args: {{metadatastore_db: 'mongodb://bob:{PLANTED['mongo']}@db/x'}}\n"
    )
    (place / ".logs" / "ipython_logger.log").write_text(
        f"|2026|INFO| - GET http://h/api?api_key={PLANTED['log']}&limit=3\n"
        f"Authorization: Apikey {PLANTED['log']}\nheaders={{'authorization': 'Bearer {PLANTED['jwt']}'}}\n"
        f"it took {PLANTED['environment']} and {PLANTED['key file']}\n{keys} {PLANTED['redis']}\n"
        f" an honest line of {tmp_path}/beamline\n"
    )
    (place / ".logs" / "ipython_console.log").write_text(f"c = from_uri(url, api_key='{PLANTED['typed']}')\nct 3\n")
    code, shown = run(
        place,
        *("report-bug", "--config", "."),
        HOME=str(tmp_path),
        MY_TOKEN=PLANTED["environment"],
        TILED_API_KEY=PLANTED["short"],
        EPICS_CA_CONN_TMO="17",
    )
    assert code == 0, shown
    kept = members(place)
    for name, secret in PLANTED.items():
        assert not [member for member, text in kept.items() if secret in text], name
        assert secret not in shown
    assert not [member for member, text in kept.items() if str(tmp_path) in text]
    assert "an honest line of ~/beamline" in kept["logs/ipython_logger.log"]
    assert "ct 3" in kept["logs/ipython_console.log"]
    assert "EPICS_CA_CONN_TMO=17" in kept["environment.txt"]
    assert f"TILED_API_KEY={GONE}" in kept["environment.txt"]
    assert re.search(r"(?m)^bluesky==\d", kept["versions.txt"])
    assert "beamline_id: 45-ID" in kept["config/iconfig.yml"]
    assert "port: 8123" in kept["config/iconfig.yml"]
    assert "kept_name" in kept["config/devices.yml"]
    assert f"mongodb://bob:{GONE}@db/x" in kept["config/bluesky_class.yml"]
    assert kept["doctor.txt"].startswith("instrument doctor, ")
    # what it says: each member, and that nothing was sent
    assert set(kept) == set(re.findall(r"(?m)^  (\S+) +[\d,]+ bytes$", shown))
    assert "Nothing was sent." in shown
    (archive,) = place.glob("*.tar.gz")
    assert str(archive) in shown
    assert archive.stat().st_mode & 0o077 == 0


def test_an_archive_that_can_not_be_written_is_one_line(tmp_path):
    code, shown = run(tmp_path, "report-bug", "--to", "nowhere/report.tar.gz")
    assert code == 1
    assert shown == "the report can't be written to nowhere/report.tar.gz (No such file or directory): --to FILE\n"
    assert list(tmp_path.iterdir()) == []


WAYS = (
    "password: {}",
    "  - api_key: {} ",
    "MONGO_PASSWORD={}",
    "export TILED_API_KEY={}",
    "from_uri(url, api_key='{}')",
    '{{"client_secret": "{}"}}',
    "GET /api/v1/?limit=3&access_token={}&x=1 HTTP/1.1",
    "mongodb://user:{}@host/db",
    "redis://:{}@host:6379",
    "https://me:{}@host:8443/path",
    "postgresql+asyncpg://u:{}@h/d?sslmode=require",
    "curl -H 'Authorization: Apikey {}'",
    "Authorization: Bearer {}",
    "instrument x --api-key {} --port 3",
    "{{password: {}, port: 3}}",
    "secret: |\n  {}\nnext: 3",
    "os.environ['PGPASSWORD'] = '{}'",
    'os.environ["PGPASSWORD"] = f"{}"',
    "RE.md['password']={}",
    'setenv("TILED_API_KEY", "{}")',
    "os.environ.setdefault('TILED_API_KEY','{}')",
    "%env TILED_API_KEY {}",
    "%set_env TILED_API_KEY {}",
    "get_ipython().run_line_magic('env', 'TILED_API_KEY {}')",
    "get_ipython().run_line_magic('env', 'TILED_API_KEY={}')",
    "setenv TILED_API_KEY {}",
    "set -x TILED_API_KEY {}",
    "export QSERVER_ZMQ_PUBLIC_KEY='{}'",
    "Address(control, info, public_key='{}')",
)


@given(
    way=st.sampled_from(WAYS),
    secret=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9!$%^*~_.+/-]{4,20}[A-Za-z0-9]\Z"),
)
def test_a_secret_is_gone_in_every_way_it_is_written(way, secret):
    if secret.lower() in {GONE[1:-1], way.lower()} or secret in way.format(""):
        return
    cleaned = Redactor({}).clean(way.format(secret))
    assert secret not in cleaned, cleaned
    assert GONE in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "author: A. Scientist",
        "key_file: tiled.key",
        "m1: moved to 3.2, passed the limit",
        "tokenize = porter",
        "http://host:8000/api/v1/metadata",
        "monkey = 3; keys: [a, b]",
        "the password was refused",
        "%env EPICS_CA_ADDR_LIST 10.0.0.1",
        "environment tokens are read first",
    ],
)
def test_what_is_no_secret_stays(text):
    assert Redactor({"USER": "bob"}, home="/home/bob").clean(text) == text


def test_the_account_is_not_told():
    redactor = Redactor({"USER": "bob.smith", "HOME": "/home/bob.smith"})
    assert redactor.clean("in /home/bob.smith/data, /nfs/bob.smith/x") == "in ~/data, /nfs/<user>/x"
    assert os.environ.get("HOME", "/nowhere") not in Redactor().clean(f"{os.environ.get('HOME', '')}/x")
